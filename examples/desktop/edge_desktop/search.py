"""What a search has done so far, told from its events; no Qt in here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from edge_tts import BestSoFar, CandidateScored, DifficultyEstimated, Event, StepTaken, StrategyChosen
from edge_tts.search.strategy import Strategy

_OVER_STEPS = ("beam", "lookahead", "dvts")
_GOING_ON = ("majority", "adaptive", "best-of-n", "weighted")
"""Strategies whose candidates are independent samples: those that estimated the difficulty are the first of them."""
_TOKEN = re.compile(r"\d|[^\W\d_]+|[^\w\s]")


@dataclass(frozen=True)
class Candidate:
    """One row of the view."""

    steps: tuple[str, ...] = ()
    finished: bool = False
    score: float | None = None


@dataclass
class Search:
    """The state of one search; ``take`` brings it up to date."""

    generations: int
    """Most generations it may draw."""
    marker: str
    """What a step that states the answer begins with."""
    candidates: list[Candidate] = field(default_factory=list)
    difficulty: int | None = None
    """0 (easiest) to 4."""
    strategy: str = ""
    reason: str = ""
    best: str | None = None
    """The answer that would be given now."""
    round: int = 0
    """Of a search over steps, from 1; 0 for others."""
    spent: int = 0
    """Generations begun, at most ``generations``."""
    tokens: int = 0
    """Generated so far, estimated from the text: digits and signs are a token each, most words as well."""
    _over_steps: bool = False
    _scored: bool = False

    def take(self, event: Event) -> int | None:
        """Take one event in; the row it changed, or None where it is about all of them."""
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
        """What ``candidate`` answers, or None."""
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
            self._spend(strategy.generations)  # claimed as a whole

    def _step(self, event: StepTaken) -> int | None:
        self.tokens += len(_TOKEN.findall(event.text)) + 1
        renewed = self._over_steps and self._scored
        if renewed:  # the beams are expanded anew: each row is a candidate for the next step
            self.candidates.clear()
            self.round, self._scored = self.round + 1, False
        while event.candidate >= len(self.candidates):
            self.candidates.append(Candidate())
        old = self.candidates[event.candidate]
        # The next candidate takes the row of a finished one.
        if not self._over_steps and (not old.steps or old.finished):
            self._spend(1)
        self.candidates[event.candidate] = Candidate(event.steps, event.finished)
        return None if renewed else event.candidate

    def _spend(self, generations: int) -> None:
        self.spent = min(self.generations, self.spent + generations)
