"""The state of a search, built from its events. Does not use Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from edge_tts import BestSoFar, CandidateScored, DifficultyEstimated, Event, StepTaken, StrategyChosen
from edge_tts.search.strategy import Strategy

_OVER_STEPS = ("beam", "lookahead", "dvts")
_GOING_ON = ("majority", "adaptive", "best-of-n", "weighted")
"""Strategies with independent samples. They go on from the samples that estimated the difficulty."""
_TOKEN = re.compile(r"\d|[^\W\d_]+|[^\w\s]")


@dataclass(frozen=True)
class Candidate:
    """One candidate: a row of the table."""

    steps: tuple[str, ...] = ()
    finished: bool = False
    score: float | None = None


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
    best: str | None = None
    """The best answer so far."""
    round: int = 0
    """Round of a search over steps, from 1; 0 for other strategies."""
    spent: int = 0
    """Generations begun so far, at most ``generations``."""
    tokens: int = 0
    """Tokens generated so far, estimated from the text: a token for each digit, sign and word."""
    _over_steps: bool = False
    _scored: bool = False

    def take(self, event: Event) -> int | None:
        """Apply one event. Returns the row it changed, or None if it concerns all rows or none."""
        match event:
            case DifficultyEstimated(bin_, _):
                self.difficulty = bin_
            case StrategyChosen(strategy, reason):
                self._begin(strategy, reason)
            case BestSoFar(answer, _):
                self.best = answer
            case StepTaken():
                return self._step(event)
            case CandidateScored(index, score):
                self._scored = True
                if index < len(self.candidates):
                    self.candidates[index] = replace(self.candidates[index], score=score)
                    return index
        return None

    def answer(self, candidate: Candidate) -> str | None:
        """The answer of ``candidate``, or None."""
        last = candidate.steps[-1] if candidate.steps else ""
        return last[len(self.marker) :].strip() if candidate.finished and last.startswith(self.marker) else None

    def _begin(self, text: str, reason: str) -> None:
        self.strategy, self.reason = text, reason
        strategy = Strategy.parse(text)
        self._over_steps = strategy.kind in _OVER_STEPS
        if strategy.kind not in _GOING_ON:
            self.candidates.clear()
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
        self.candidates[event.candidate] = Candidate(event.steps, event.finished)
        return None if renewed else event.candidate

    def _spend(self, generations: int) -> None:
        self.spent = min(self.generations, self.spent + generations)
