"""What the search tests share: contexts over scripted models, and ways to drain a search."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from edge_tts.core import BestSoFar, CandidateScored, Event, Outcome, StepTaken, Trace
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.context import SearchContext

PROMPTS = PromptFormat(prompt="Q {question}\nA ", attempt="{attempt}\nRevise:\n")
QUESTION = "q"
PROMPT = PROMPTS.render(QUESTION)


def context(policy: ScriptedPolicy, verifier: ScriptedVerifier | None = None, **settings: Any) -> SearchContext:
    return SearchContext(policy, verifier, prompts=PROMPTS, **settings)


def in_turn(*continuations: str) -> Callable[[str, int], str]:
    """A continuation function that gives these texts to one request after another."""
    left = iter(continuations)
    return lambda text, seed: next(left)


def last_step(scores: dict[str, float], default: float = 0.5) -> Callable[[str, Sequence[str]], list[float]]:
    """A score function that knows each step's score by its text."""
    return lambda question, steps: [scores.get(step, default) for step in steps]


def drain(search: Generator[Event, None, Outcome]) -> tuple[list[Event], Outcome]:
    """All events of a search, and its outcome."""
    events: list[Event] = []
    while True:
        try:
            events.append(next(search))
        except StopIteration as stop:
            return events, stop.value


def finished(answer: str, *scores: float) -> Trace:
    """A finished trace of one step."""
    return Trace((1,), (f"#### {answer}",), finished=True, answer=answer, scores=scores)


def steps_taken(events: Sequence[Event]) -> list[StepTaken]:
    return [event for event in events if isinstance(event, StepTaken)]


def scored(events: Sequence[Event]) -> list[CandidateScored]:
    return [event for event in events if isinstance(event, CandidateScored)]


def announced(events: Sequence[Event]) -> list[str]:
    return [event.answer for event in events if isinstance(event, BestSoFar)]
