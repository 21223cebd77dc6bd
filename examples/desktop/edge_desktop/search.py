"""The state of a search, built from its events. Does not use Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from edge_tts import (
    BestSoFar,
    CandidateScored,
    Decided,
    DifficultyEstimated,
    Explained,
    InputError,
    StepTaken,
    StrategyChosen,
)
from edge_tts.search.strategy import Strategy
from edge_tts.search.wording import counted

_OVER_STEPS = ("beam", "lookahead", "dvts", "particles")
_GOING_ON = ("majority", "adaptive", "best-of-n", "weighted")
"""Strategies with independent samples. They go on from the samples that estimated the difficulty."""
_TOKEN = re.compile(r"\d|[^\W\d_]+|[^\w\s]")


@dataclass(frozen=True)
class Candidate:
    """One candidate: a row of the table."""

    steps: tuple[str, ...] = ()
    finished: bool = False
    score: float | None = None
    answer: str | None = None
    error: str = ""
    """Why it ended without an answer, in the program format."""
    doubts: tuple[str, ...] = ()
    """What its steps state that does not hold."""

    @property
    def failed(self) -> bool:
        """Whether it ended without an answer."""
        return self.finished and self.answer is None


@dataclass
class Search:
    """The state of one search, updated by ``take``."""

    generations: int
    """Budget of the search, in generations."""
    marker: str
    """Text before the answer in a candidate's last step."""
    candidates: list[Candidate] = field(default_factory=list)
    difficulty: int | None = None
    """0 (easiest) to 4."""
    strategy: str = ""
    reason: str = ""
    decision: str = ""
    """What was decided after the latest wave of samples, and why."""
    best: str | None = None
    """The best answer so far."""
    confidence: float | None = None
    """Probability in [0, 1] that ``best`` is right; None before there is one."""
    explanation: str = ""
    """As far as it has come."""
    voters: int = 0
    """Candidates that have ended with an answer; only independent ones are counted."""
    ended: int = 0
    """Those that have ended."""
    round: int = 0
    """Round of a search over steps, from 1; 0 for other strategies."""
    spent: int = 0
    """Generations begun so far, at most ``generations``."""
    tokens: int = 0
    """Tokens generated so far, estimated from the text: a token for each digit, sign and word."""
    _over_steps: bool = False
    _scored: bool = False

    @property
    def votes_are_counted(self) -> bool:
        """Whether the vote is one of whole samples."""
        return not self._over_steps

    def take(self, event: object) -> int | None:
        """Apply one event, which may be of a kind that is not known here. Returns the row it changed, or None if it
        concerns all rows or none."""
        match event:
            case DifficultyEstimated(bin_, _):
                self.difficulty = bin_
            case StrategyChosen(strategy, reason):
                self._begin(strategy, reason)
            case BestSoFar(answer, _, confidence):
                self.best, self.confidence = answer, confidence
            case Decided(_, samples, confidence, reason):
                self.decision = f"After {counted(samples)}: {reason}"
                if self.best is not None:
                    self.confidence = confidence
            case Explained(text):
                self.explanation += text
            case StepTaken():
                return self._step(event)
            case CandidateScored(index, score):
                self._scored = True
                if index < len(self.candidates):
                    self.candidates[index] = replace(self.candidates[index], score=score)
                    return index
        return None

    def work(self, candidate: Candidate) -> tuple[str, ...]:
        """The steps of ``candidate`` without one that only states its answer, which has a column of its own."""
        steps = candidate.steps
        states = bool(steps and self.marker.strip()) and steps[-1].startswith(self.marker.strip())
        return steps[:-1] if states and candidate.answer is not None else steps

    def _begin(self, text: str, reason: str) -> None:
        self.strategy, self.reason = text, reason
        try:
            strategy = Strategy.parse(text)
        except InputError:  # one that the library has and this app does not know
            return
        self._over_steps = strategy.kind in _OVER_STEPS
        if strategy.kind not in _GOING_ON:
            self.candidates.clear()
            self.voters = self.ended = 0
        if self._over_steps:
            self.round, self._scored = 1, False
            self._spend(strategy.generations)  # a search over steps claims all its generations at once

    def _step(self, event: StepTaken) -> int | None:
        self.tokens += len(_TOKEN.findall(event.text)) + 1
        renewed = self._over_steps and self._scored
        if renewed:  # a new round: each row is a candidate for the next step
            self.candidates.clear()
            self.round, self._scored = self.round + 1, False
        while event.candidate >= len(self.candidates):
            self.candidates.append(Candidate())
        old = self.candidates[event.candidate]
        # A chain of revisions reuses the row of its finished attempt.
        if not self._over_steps and (not old.steps or old.finished):
            self._spend(1)
        self.candidates[event.candidate] = Candidate(
            event.steps, event.finished, answer=event.answer, error=event.error, doubts=event.doubts
        )
        self.ended += event.finished
        self.voters += event.answer is not None
        return None if renewed else event.candidate

    def _spend(self, generations: int) -> None:
        self.spent = min(self.generations, self.spent + generations)
