"""What the search tests share: contexts over scripted models, and ways to drain a search."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from edge_tts.answers.formulas import Timeout
from edge_tts.core import Sampling, Trace, Usage
from edge_tts.events import (
    BestSoFar,
    CandidateScored,
    Event,
    Outcome,
    StepTaken,
)
from edge_tts.reasoning.formats import AskedEquations
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.confidence import UNCALIBRATED, Calibration
from edge_tts.search.driver import Driver, Task, Way
from edge_tts.search.ledger import Ledger
from edge_tts.search.pace import Pace
from edge_tts.search.selection import Aggregate, Choice, majority
from edge_tts.search.wave import Candidate, End, Proposer, Wave, Waves, traces

PROMPTS = PromptFormat(prompt="Q {question}\nA ", attempt="{attempt}\nRevise:\n")
QUESTION = "q"
PROMPT = PROMPTS.render(QUESTION)


class Search:
    """One search over scripted models: the driver with its ledger, made from the settings of both."""

    def __init__(
        self,
        policy: ScriptedPolicy,
        verifier: ScriptedVerifier | None = None,
        question: str = QUESTION,
        sampling: Sampling | None = None,
        aggregate: Aggregate = "last",
        seed: int = 0,
        others: tuple[Way, ...] = (),
        calibration: Calibration = UNCALIBRATED,
        pace: Pace | None = None,
        **limits: Any,
    ) -> None:
        self.policy = policy
        self.ledger = Ledger(policy.info, verifier.info if verifier else None, **limits)
        asked = AskedEquations(PROMPTS, question)
        task = Task(question, asked, sampling or Sampling(), aggregate, seed, others, calibration)
        self.driver = Driver(task, policy, verifier, self.ledger, pace)

    @property
    def usage(self) -> Usage:
        return self.ledger.usage

    def run(self, strategy: Proposer, initial: Sequence[Trace] = ()) -> Generator[Event, None, Outcome]:
        return self.driver.run(strategy, initial)


@dataclass
class Proposed:
    """A strategy that proposes these waves in turn and chooses by majority; ``grown`` is what each brought."""

    proposals: Sequence[Callable[[list[Candidate]], Wave]]
    needs_verifier = uses_scores = eager = False
    grown: list[list[Candidate]] = field(default_factory=list)

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        last = list(initial)
        for propose in self.proposals:
            last = yield propose(last)
            self.grown.append(last)
        return End(last)

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return majority(traces(candidates), timeout)


def context(policy: ScriptedPolicy, verifier: ScriptedVerifier | None = None, **settings: Any) -> Search:
    return Search(policy, verifier, **settings)


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
    """The answers told, each change once."""
    return [answer for answer, _ in groupby(event.answer for event in events if isinstance(event, BestSoFar))]
