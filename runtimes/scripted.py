"""A policy and a verifier that follow a script: for tests of search code and of code that embeds it.

They implement the same protocols as the real ones. A scripted policy decodes in lockstep over
``width`` slots, one character a token, so that steps of different requests interleave as they do
in a batched engine, and every token evaluated is counted.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    ChatModelInfo,
    ModelInfo,
    Request,
    Scored,
    StepEvent,
    StepEvents,
    StopReason,
)
from edge_tts.errors import InputError
from edge_tts.runtimes.common_prefix import common_prefix

END_TOKEN = 0
"""Token id that ends a continuation; every other id is a code point."""
GREEDY_SEED = -1
"""What a continuation function is given as seed when the temperature is 0."""


class ScriptedClock:
    """A clock that moves only when told; call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ScriptedPolicy:
    """A policy that continues text as a function says.

    ``continue_fn(text, seed)`` gets everything so far and returns the rest up to the end token,
    which is implied; a request with temperature 0 passes ``GREEDY_SEED``. With a ``ScriptedClock``
    every batch (one token in each running slot) takes ``batch_seconds``.
    """

    def __init__(
        self,
        continue_fn: Callable[[str, int], str],
        *,
        width: int = 4,
        context_length: int = 4096,
        parameters: int = 1000,
        clock: ScriptedClock | None = None,
        batch_seconds: float = 0.0,
    ) -> None:
        self.info = ModelInfo("scripted-policy", parameters, context_length, "cpu", "it runs a script")
        self.chat_model = ChatModelInfo()
        self.width = width
        self.evaluated_tokens = 0
        """Every token evaluated since creation, of abandoned steps too."""
        self.calls: list[tuple[Request, ...]] = []
        """The requests of each ``generate`` that was started."""
        self.running = 0
        """Calls of ``generate`` that are neither exhausted nor closed."""
        self._continue = continue_fn
        self._clock = clock
        self._batch_seconds = batch_seconds
        self._evaluated: list[str] = []

    def special(self, token: int) -> None:
        """Its vocabulary, the code points, has no special tokens."""
        return None

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        """See ``core.Policy``. Raises InputError for a prefix that fills the context."""
        for request in requests:
            if len(request.tokens) >= self.info.context_length:
                raise InputError(
                    f"a prefix of {len(request.tokens)} tokens leaves no room in a context of "
                    f"{self.info.context_length}; shorten the question or load a longer context"
                )
        self.calls.append(tuple(requests))
        self.running += 1
        slots: list[_Slot] = []
        try:
            waiting = deque(enumerate(requests))
            while waiting or slots:
                if cancel is not None and cancel.requested:
                    return
                if deadline is not None and self._now() >= deadline:
                    unstarted = [_Slot(index, request, "", 0) for index, request in waiting]
                    yield from (slot.event("cancelled") for slot in (*slots, *unstarted))
                    return
                while waiting and len(slots) < self.width:
                    slots.append(self._open(*waiting.popleft()))
                if self._clock is not None:
                    self._clock.advance(self._batch_seconds)
                self.evaluated_tokens += len(slots)
                for slot in tuple(slots):
                    if slot not in slots:
                        continue
                    slot.decode_one()
                    event = slot.finished_step(self.info.context_length)
                    if event is None:
                        continue
                    if event.stop is not None:
                        slots.remove(slot)
                        self._remember(slot)
                    dropped = (yield event) or ()
                    ended = [_Slot(*item, "", 0) for item in waiting if item[0] in dropped]
                    waiting = deque(item for item in waiting if item[0] not in dropped)
                    for unwanted in [slot for slot in slots if slot.index in dropped]:
                        slots.remove(unwanted)
                        self._remember(unwanted)
                        ended.append(unwanted)
                    yield from (slot.event("cancelled") for slot in ended)
        finally:
            for slot in slots:
                self._remember(slot)
            self.running -= 1

    def close(self) -> None:
        self._evaluated.clear()

    def _now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock()

    def _open(self, index: int, request: Request) -> _Slot:
        prefix = _text(request.tokens)
        seed = GREEDY_SEED if request.sampling.temperature == 0 else request.seed
        at = bisect_left(self._evaluated, prefix)
        neighbours = self._evaluated[max(0, at - 1) : at + 1]
        known = max((common_prefix(prefix, text) for text in neighbours), default=0)
        insort(self._evaluated, prefix)
        self.evaluated_tokens += len(prefix) - known
        rest = self._continue(prefix, seed)
        ends = [at for stop in request.sampling.stop if (at := rest.find(stop)) >= 0]
        return _Slot(index, request, rest[: min(ends, default=None)], len(prefix) - known)

    def _remember(self, slot: _Slot) -> None:
        insort(self._evaluated, _text(slot.request.tokens) + slot.rest[: slot.done])


@dataclass
class _Slot:
    """One request being decoded."""

    index: int
    request: Request
    rest: str
    prefill: int
    done: int = 0
    """Tokens decoded of ``rest`` and the end token that follows it."""
    reported: int = 0
    steps: int = 0

    def decode_one(self) -> None:
        self.done += 1

    def finished_step(self, context_length: int) -> StepEvent | None:
        """The event due after the last token, if it finished a step or the request."""
        delimiter, ended = self.request.delimiter, self.done > len(self.rest)
        delimited = self.rest[self.reported : self.done].endswith(delimiter)
        full = self.done + len(self.request.tokens) >= context_length or self.done >= self.request.sampling.max_tokens
        self.steps += ended or delimited
        if ended:
            return self.event("end")
        if delimited and self.steps == self.request.max_steps:
            return self.event("step", delimiter)
        if full:
            return self.event("length", delimiter)
        return self.event(None, delimiter) if delimited else None

    def event(self, stop: StopReason | None, delimiter: str = "") -> StepEvent:
        text = self.rest[self.reported : self.done]
        tokens = tuple(map(ord, text)) + ((END_TOKEN,) if stop == "end" else ())
        event = StepEvent(self.index, text.removesuffix(delimiter), tokens, -float(len(tokens)), self.prefill, 0, stop)
        self.reported, self.prefill = self.done, 0
        return event


class ScriptedVerifier:
    """A verifier that scores as a function says.

    ``score_fn(question, steps)`` returns one score in [0, 1] per step. A trace costs one token a
    character of question and steps, and nothing when it was scored before. With a
    ``ScriptedClock`` every token takes ``token_seconds``.
    """

    def __init__(
        self,
        score_fn: Callable[[str, Sequence[str]], Sequence[float]],
        *,
        parameters: int = 10,
        clock: ScriptedClock | None = None,
        token_seconds: float = 0.0,
    ) -> None:
        self.info = ModelInfo("scripted-verifier", parameters, 4096, "cpu", "it runs a script")
        self.scored: list[tuple[str, ...]] = []
        """Every trace handed in, in order, repeated ones too."""
        self._score = score_fn
        self._clock = clock
        self._token_seconds = token_seconds
        self._known: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        """See ``core.Verifier``. Raises InputError when the script's scores do not fit the steps."""
        results: list[Scored] = []
        for steps in map(tuple, traces):
            if cancel is not None and cancel.requested:
                break
            self.scored.append(steps)
            tokens = 0
            if (question, steps) not in self._known:
                scores = tuple(self._score(question, steps))
                if len(scores) != len(steps) or not all(0 <= score <= 1 for score in scores):
                    raise InputError(
                        f"the script scored {len(steps)} steps with {scores}; return one score in [0, 1] per step"
                    )
                self._known[question, steps] = scores
                tokens = len(question) + sum(map(len, steps))
            if self._clock is not None:
                self._clock.advance(tokens * self._token_seconds)
            results.append(Scored(self._known[question, steps], tokens))
        return results

    def seconds(self, tokens: int) -> float:
        return tokens * self._token_seconds

    def close(self) -> None:
        self._known.clear()


def _text(tokens: Sequence[int]) -> str:
    return "".join(chr(token) for token in tokens if token != END_TOKEN)
