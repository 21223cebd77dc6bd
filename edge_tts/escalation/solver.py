"""A solver that hands questions over to a larger model where it is unsure of its own answer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from edge_tts.answers.equivalence import equivalent
from edge_tts.cancellation import Cancellation
from edge_tts.errors import EdgeError, InputError
from edge_tts.escalation.endpoint import EndpointTarget, answered
from edge_tts.events import (
    Decided,
    Done,
    Escalated,
    Event,
    Result,
)
from edge_tts.packs.planned import plan
from edge_tts.planning.planner import Plan
from edge_tts.reasoning.messages import Message, as_messages
from edge_tts.reasoning.question_kind import kind_of
from edge_tts.search.call import Call
from edge_tts.search.confidence import Standing
from edge_tts.solver import Solver

ONE_ANSWER = Standing(1, 1).posterior
"""Confidence in the one answer of an endpoint."""
TOLD_TOKENS = 128
"""What the larger model is told beside the question takes at most about this many."""
LEAST_SECONDS = 1.0
"""With less time left a question is not handed over."""


class EscalatingSolver(Solver):
    """A :class:`Solver` whose answers below a confidence are asked of a larger model too.

    The larger model is another local one, or an endpoint that the caller names. A local one is loaded beside the small
    one where both fit the memory cap; else they are loaded in turn, and questions then wait for each other.
    """

    def __init__(self, to: str, below: float = 0.5, prices: tuple[float, float] | None = None, **settings: Any) -> None:
        """``to``: a model as ``Solver(model=...)`` takes it, or ``http(s)://HOST/PATH#MODEL``; ``below``: a confidence
        in [0, 1]; ``prices``: of an endpoint's million prompt tokens and new tokens. ``settings`` are the
        :class:`Solver`'s, for both models. Raises what :class:`Solver` raises.
        """
        if not 0 <= below <= 1:
            raise InputError(f"a confidence to escalate below is from 0 to 1; got {below}")
        self.to, self.below = to, below
        self._endpoint = EndpointTarget.parse(to)
        if prices is not None:
            self._endpoint = _priced(self._endpoint, to, prices)
        shared = {name: value for name, value in settings.items() if name not in ("pack", "model", "progress")}
        if shared.get("prompt_tokens"):
            shared["prompt_tokens"] += TOLD_TOKENS
        self._larger_settings = {**shared, "model": to}
        self._larger: Solver | None = None
        larger = None if self._endpoint else _planned(self._larger_settings)
        super().__init__(**settings)
        self._in_turn = bool(larger and self.plan.memory.total + larger.memory.total > self.plan.memory_cap_mb)
        self._turn = threading.Semaphore()
        """Of loading and asking models that are loaded in turn."""

    def _search(self, call: Call, cancel: Cancellation) -> Generator[Event | Done, None, None]:
        if not self._in_turn:
            yield from self._escalating(call, cancel)
            return
        with self._turn:
            if self._larger is not None:
                self._larger.close()
                self._larger = None
                self._load()
            yield from self._escalating(call, cancel)

    def _escalating(self, call: Call, cancel: Cancellation) -> Generator[Event | Done, None, None]:
        began = time.monotonic()
        messages = as_messages(call.question)
        call = replace(call, question=messages)
        result: Result | None = None
        for event in super()._search(call, cancel):
            if isinstance(event, Done):
                result = event.result
            else:
                yield event
        assert result is not None
        seconds = call.budget.seconds or self.deadline_s
        left = None if seconds is None else seconds - (time.monotonic() - began)
        if result.confidence >= self.below or cancel.requested:
            yield Done(result)
        elif left is not None and left < LEAST_SECONDS:
            yield Done(_noted(result, f"there was no time left to ask {self.to}"))
        else:
            reason = f"{result.confidence:.0%} sure is less than {self.below:.0%}: asking {self.to}"
            yield Decided("escalate", 0, result.confidence, reason)
            try:
                handed = yield from self._handed_over(call, messages, result, left, cancel)
            except EdgeError as error:
                handed = _noted(result, self._failed(error))
            yield Done(replace(handed, usage=replace(handed.usage, seconds=time.monotonic() - began)))

    def _handed_over(
        self, call: Call, messages: tuple[Message, ...], result: Result, left: float | None, cancel: Cancellation
    ) -> Generator[Event | Done, None, Result]:
        told = _told(messages, result)
        if self._endpoint:
            kind = call.kind or kind_of(messages[-1].content)
            reply = answered(self._endpoint, told, kind, left, cancel)
            escalated = replace(reply.escalated, **_before(result), kept=reply.answer is not None)
            if reply.answer is None:
                note = self._failed(reply.failure) if reply.failure else f"{self.to} gave no answer"
                return replace(_noted(result, note), escalation=escalated)
            same = result.answer is not None and equivalent(reply.answer, result.answer)
            return replace(
                result,
                answer=reply.answer,
                steps=reply.steps,
                text="\n\n".join(reply.steps),
                finished=True,
                format="text",
                confidence=max(ONE_ANSWER, result.confidence if same else 0.0),
                escalation=escalated,
                values=(),
                scores=(),
                partial=(),
            )
        larger = self._loaded()
        began = time.monotonic()
        asked = replace(call, question=told, budget=replace(call.budget, seconds=left), sampling=None)
        theirs: Result | None = None
        for event in larger._search(asked, cancel):
            if isinstance(event, Done):
                theirs = event.result
            else:
                yield event
        assert theirs is not None
        surer = theirs.confidence >= result.confidence or not self._comparable(result, theirs)
        kept = theirs.answer is not None and surer
        escalated = Escalated(
            larger.pack.title,
            "this machine",
            theirs.prompt_tokens,
            theirs.usage.generated_tokens,
            time.monotonic() - began,
            kept=kept,
            **_before(result),
        )
        chosen = theirs if kept else result
        return replace(chosen, usage=result.usage + theirs.usage, escalation=escalated, difficulty=result.difficulty)

    def _failed(self, why: EdgeError | str) -> str:
        return f"asking {self.to} failed, so the local answer stays: {why}"

    def _comparable(self, result: Result, theirs: Result) -> bool:
        """Whether both confidences were fitted: shares of two models' votes say nothing about each other."""
        both = ((self.fits, result.format), (self._loaded().fits, theirs.format))
        return all(any(name == format and fit.calibration.right for name, fit in fits.items()) for fits, format in both)

    def _loaded(self) -> Solver:
        """The larger model's solver; the small one's models are given back first where both do not fit."""
        if self._larger is None:
            if self._in_turn:
                self._models.close()
            self._larger = Solver(**self._larger_settings)
        return self._larger

    def close(self) -> None:
        """See :meth:`Solver.close`."""
        if self._larger is not None:
            self._larger.close()
        super().close()


def _priced(endpoint: EndpointTarget | None, to: str, prices: tuple[float, float]) -> EndpointTarget:
    if endpoint is None:
        raise InputError(f"prices are those of an endpoint, and {to} runs on this machine; leave them out")
    if not all(0 <= price < math.inf for price in prices):
        raise InputError(f"prices of a million tokens must be 0 or more; got {prices[0]:g} and {prices[1]:g}")
    return replace(endpoint, prices=prices)


def _planned(settings: Mapping[str, Any]) -> Plan:
    """The larger model's plan; says at once where it is not known or does not fit."""
    known = ("profile", "memory_mb", "deadline_s", "generations", "prompt_tokens", "verifier", "max_tokens", "model")
    return plan(**{name: settings[name] for name in known if name in settings})


def _told(messages: tuple[Message, ...], result: Result) -> tuple[Message, ...]:
    """``messages`` with what was tried in the system message; the question itself stays as it is."""
    if result.votes:
        tried = ", ".join(f"{answer} ({share:.0%} of its samples)" for answer, share in result.votes[:4])
        told = f"A smaller model tried the problem and is unsure. Its answers, which may be wrong: {tried}."
    else:
        told = "A smaller model tried the problem and found no answer."
    if messages[0].role == "system":
        return (Message("system", f"{messages[0].content.rstrip()}\n\n{told}"), *messages[1:])
    return (Message("system", told), *messages)


def _before(result: Result) -> dict[str, Any]:
    return {"answer_before": result.answer, "confidence_before": result.confidence}


def _noted(result: Result, note: str) -> Result:
    return replace(result, notes=(*result.notes, note))
