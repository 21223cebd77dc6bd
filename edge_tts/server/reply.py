"""Builds OpenAI's response objects: a chat completion, or the chunks of a stream."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_tts.core import BestSoFar, CandidateScored, DifficultyEstimated, Event, Result, StepTaken, StrategyChosen

EVENT_NAMES: dict[type[Event], str] = {
    DifficultyEstimated: "difficulty",
    StrategyChosen: "strategy",
    StepTaken: "step",
    CandidateScored: "score",
    BestSoFar: "best",
}
"""The ``type`` of each reasoning event; its other fields are the attributes of the class."""


@dataclass(frozen=True)
class Replier:
    """Builds the objects of one completion, which share an id and a time."""

    model: str
    delimiter: str
    """Text between two steps."""
    stops: tuple[str, ...]
    """The content is cut before the first of these."""
    events: bool = False
    """Whether a stream tells the search's events as they are, not as ``reasoning_content``."""
    include_usage: bool = False
    """Whether a stream ends with a chunk that holds the usage; all other chunks then have a ``usage`` of null."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, results: Sequence[Result]) -> dict[str, Any]:
        """The completion. ``edge`` is the first choice's; with several choices each also has its own."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": self.content(result), "refusal": None},
                "logprobs": None,
                "finish_reason": _finish_reason(result),
                **({"edge": account(result)} if len(results) > 1 else {}),
            }
            for i, result in enumerate(results)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage(results),
            "edge": account(results[0]),
        }

    def opening(self, choices: int) -> Iterator[dict[str, Any]]:
        """The first chunks of a stream."""
        for i in range(choices):
            yield self._chunk([_delta(i, {"role": "assistant", "content": ""})])

    def progress(self, choice: int, event: Event) -> dict[str, Any] | None:
        """A chunk that tells an event of one choice's search; None for an event that is not told.

        With ``events`` the chunk has no choices, so that clients that do not know this extension skip it.
        """
        if self.events:
            told = {"type": EVENT_NAMES[type(event)], "choice": choice, **asdict(event)}
            return self._chunk([]) | {"edge": {"event": told}}
        text = reasoning(event)
        return self._chunk([_delta(choice, {"reasoning_content": text})]) if text else None

    def answer(self, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
        """The last chunks of a stream: each choice's content and ``finish_reason`` with ``edge``, then the usage."""
        for i, result in enumerate(results):
            for piece in self.content(result).splitlines(keepends=True):
                yield self._chunk([_delta(i, {"content": piece})])
            yield self._chunk([_delta(i, {}, _finish_reason(result))]) | {"edge": account(result)}
        if self.include_usage:
            yield self._chunk([]) | {"usage": usage(results)}

    def content(self, result: Result) -> str:
        """The steps of the chosen trace; empty if no candidate finished."""
        delimiter = "\n" if result.format == "program" else self.delimiter
        text = delimiter.join(result.steps) if result.finished else ""
        return re.split("|".join(map(re.escape, self.stops)), text, maxsplit=1)[0] if self.stops else text

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        unknown = {"usage": None} if self.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **unknown}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def reasoning(event: Event) -> str:
    """``event`` as text for ``reasoning_content``; empty for a score. Candidates grow side by side: ``[3]`` is one."""
    match event:
        case DifficultyEstimated(bin=number):
            return f"difficulty {number + 1} of 5\n"
        case StrategyChosen(strategy, reason):
            return f"strategy {strategy}: {reason}\n"
        case StepTaken(candidate, text):
            return f"[{candidate + 1}] {text}\n"
        case BestSoFar(answer):
            return f"best so far: {answer}\n"
        case CandidateScored():
            return ""


def usage(results: Sequence[Result]) -> dict[str, int]:
    """Tokens in OpenAI's terms. ``completion_tokens`` counts all samples, not just the chosen ones."""
    prompt = results[0].prompt_tokens
    generated = sum(result.usage.generated_tokens for result in results)
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def account(result: Result) -> dict[str, Any]:
    """How the answer was found and what it cost: the result without its steps, which are the content."""
    return {name: value for name, value in result.to_dict().items() if name != "steps"}


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(result: Result) -> str:
    return "stop" if result.finished else "length"
