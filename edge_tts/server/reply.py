"""What answers have in common, and OpenAI's chat completion: whole, or as the chunks of a stream."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from edge_tts.events import (
    BestSoFar,
    CandidateScored,
    Decided,
    DifficultyEstimated,
    Event,
    Explained,
    Result,
    StepTaken,
    StrategyChosen,
)
from edge_tts.search import wording
from edge_tts.server.api_error import ApiError

EVENT_NAMES: dict[type[Event], str] = {
    DifficultyEstimated: "difficulty",
    StrategyChosen: "strategy",
    StepTaken: "step",
    CandidateScored: "score",
    BestSoFar: "best",
    Decided: "decided",
    Explained: "explained",
}
"""The ``type`` of each reasoning event; its other fields are the attributes of the class."""
PROGRAM_OPENING = "```python\n"
"""How the content begins where a program found the answer."""


@dataclass(frozen=True)
class Shape:
    """How a result becomes the content of an answer."""

    delimiter: str
    """Text between two steps."""
    stops: tuple[str, ...] = ()
    """The content is cut before the first of these."""
    as_json: bool = False
    """Whether the content is a JSON object; it is not cut then."""


class Reply(Protocol):
    """How one request is answered: whole, or as the objects of a stream, in the order of the methods."""

    @property
    def ending(self) -> str:
        """What ends a stream."""

    def whole(self, results: Sequence[Result]) -> dict[str, Any]: ...

    def opening(self, choices: int) -> Iterator[dict[str, Any]]: ...

    def progress(self, choice: int, event: Event) -> Iterator[dict[str, Any]]:
        """What tells an event of one choice's search; nothing for an event that is not told."""

    def answer(self, results: Sequence[Result]) -> Iterator[dict[str, Any]]: ...

    def failure(self, error: ApiError) -> dict[str, Any]:
        """An error that comes too late for an HTTP status."""


@dataclass(frozen=True)
class ChatReply:
    """Builds the objects of one chat completion, which share an id and a time."""

    model: str
    shape: Shape
    events: bool = False
    """Whether a stream tells the search's events as they are, not as ``reasoning_content``."""
    include_usage: bool = False
    """Whether a stream ends with a chunk that holds the usage; all other chunks then have a ``usage`` of null."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    ending: str = "data: [DONE]\n\n"

    def whole(self, results: Sequence[Result]) -> dict[str, Any]:
        """The completion. ``edge`` is the first choice's; with several choices each also has its own."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": self._content(result), "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(result),
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

    def progress(self, choice: int, event: Event) -> Iterator[dict[str, Any]]:
        """With ``events`` the chunk has no choices, so that clients that do not know this extension skip it."""
        if self.events:
            yield self._chunk([]) | {"edge": {"event": told(choice, event)}}
        elif text := reasoning(event):
            yield self._chunk([_delta(choice, {"reasoning_content": text})])

    def answer(self, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
        """The last chunks of a stream: each choice's content and ``finish_reason`` with ``edge``, then the usage."""
        for i, result in enumerate(results):
            for piece in self._content(result).splitlines(keepends=True):
                yield self._chunk([_delta(i, {"content": piece})])
            yield self._chunk([_delta(i, {}, finish_reason(result))]) | {"edge": account(result)}
        if self.include_usage:
            yield self._chunk([]) | {"usage": usage(results)}

    def failure(self, error: ApiError) -> dict[str, Any]:
        return error.body

    def _content(self, result: Result) -> str:
        return content(result, self.shape)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        unknown = {"usage": None} if self.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **unknown}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


# --- what all kinds of answers say --------------------------------------------------------------------


def event_name(event: Event) -> str:
    """The ``type`` of an event; of one that is not in ``EVENT_NAMES``, its class in snake case."""
    known = EVENT_NAMES.get(type(event))
    return known or re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


def told(choice: int, event: Event) -> dict[str, Any]:
    """An event as an object; a confidence comes with its words."""
    sure = getattr(event, "confidence", None)
    return {"type": event_name(event), "choice": choice, **asdict(event), **({} if sure is None else _words(sure))}


def reasoning(event: Event) -> str:
    """``event`` as text for ``reasoning_content``; empty for a score. Candidates grow side by side: ``[3]`` is one.

    An event that is told by no case is told by its ``reason``, where it has one.
    """
    match event:
        case DifficultyEstimated(bin=number):
            return f"difficulty {number + 1} of 5\n"
        case StrategyChosen(strategy, reason):
            return f"strategy {strategy}: {reason}\n"
        case StepTaken(candidate, told=text, error=error):
            told = [text] if text else []
            told += [f"failed: {error}"] if error else []
            return "".join(f"[{candidate + 1}] {line}\n" for line in told)
        case BestSoFar(answer, confidence=confidence):
            return f"best so far: {answer} ({wording.sureness(confidence)})\n"
        case CandidateScored():
            return ""
        case _:
            reason = getattr(event, "reason", "")
            return f"{reason}\n" if reason else ""


def content(result: Result, shape: Shape) -> str:
    """The steps of the chosen trace, cut before the first stop; empty if no candidate finished.

    A program is fenced, and its answer said behind it: its last line may only name a variable. An explanation that
    was asked for comes last.
    """
    if shape.as_json:
        return _json_object(result, shape.delimiter.join(result.steps))
    if not result.finished:
        return ""
    if result.format == "program":
        lines = "\n".join(result.steps)
        text = f"{PROGRAM_OPENING}{lines}\n```\n\nThe answer is {result.answer}."
    else:
        text = shape.delimiter.join(result.steps)
    if result.explanation:
        text += f"\n\n{result.explanation.strip()}"
    return re.split("|".join(map(re.escape, shape.stops)), text, maxsplit=1)[0] if shape.stops else text


def _json_object(result: Result, text: str) -> str:
    """The first JSON object that the solution writes in words, else an object that holds the answer."""
    decoder = json.JSONDecoder()
    for opening in re.finditer(r"\{", text if result.format == "text" else ""):
        try:
            found, _ = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        if found:  # {} may be TeX
            return json.dumps(found, ensure_ascii=False)
    return json.dumps({"answer": result.answer}, ensure_ascii=False)


def usage(results: Sequence[Result]) -> dict[str, int]:
    """Tokens in OpenAI's terms. ``completion_tokens`` counts all samples, not just the chosen ones."""
    prompt = results[0].prompt_tokens
    generated = sum(result.usage.generated_tokens for result in results)
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def account(result: Result) -> dict[str, Any]:
    """How the answer was found and what it cost: the result without its steps, which are the content.

    For people, ``words``, ``level``, ``stopped`` and ``escalated`` say the confidence, the stop reason, and that a
    larger model was asked.
    """
    found = {name: value for name, value in result.to_dict().items() if name != "steps"}
    words = _words(result.confidence) if result.finished else {}
    asked = {"escalated": wording.escalated(result.escalation)} if result.escalation else {}
    return {**found, **words, **asked, "stopped": wording.why_stopped(result.stop_reason)}


def _words(confidence: float) -> dict[str, str]:
    return {"words": wording.sureness(confidence), "level": wording.level(confidence)}


def finish_reason(result: Result) -> str:
    """ "stop", or "length" where no candidate finished."""
    return "stop" if result.finished else "length"


def _delta(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
