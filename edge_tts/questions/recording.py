"""A search as its events told it: the candidates with their steps, the votes, and a time line.

Events speak of lanes, and a lane may hold one candidate after another (the attempts of a chain, the branches of a
tree); a recording numbers all candidates from 1 in the order in which they began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from edge_tts.answers.equivalence import group
from edge_tts.core import StepValue
from edge_tts.events import (
    BestSoFar,
    CandidateScored,
    DifficultyEstimated,
    Explained,
    StepTaken,
    StrategyChosen,
)

COMPARING_SECONDS = 0.2
"""What comparing answers that are formulas may take each time: votes are shown while a search is running."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Attempt:
    """One candidate, as far as it has got."""

    number: int
    """From 1, in the order in which the candidates began."""
    steps: tuple[str, ...] = ()
    values: tuple[tuple[StepValue, ...], ...] = ()
    """What each of ``steps`` assigned, in the program format; as long as ``steps``."""
    finished: bool = False
    answer: str | None = None
    error: str = ""
    """Why it ended without an answer, in the program format."""
    doubts: tuple[str, ...] = ()
    """What its steps state that does not hold."""
    score: Share | None = None
    """What the verifier made of it; None where it was not scored."""


@dataclass(frozen=True)
class AnswerGroup:
    """The candidates with one answer, in order."""

    answer: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class Moment:
    """One event of a search, as a line for people."""

    seconds: float
    """Since the search began."""
    kind: str
    """The event's class."""
    line: str


class Recording:
    """Takes the events of one search."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._lanes: dict[int, int] = {}
        """Each lane's latest attempt, as an index of ``attempts``."""
        self.attempts: list[Attempt] = []
        self.moments: list[Moment] = []
        self.best: BestSoFar | None = None
        self.confidences: list[float] = []
        """The confidence in [0, 1] each time it changed."""
        self.confidence: float | None = None
        """That of ``best`` as things stand; None where candidates have ended since it was told."""
        self.strategy = ""
        self.difficulty: int | None = None
        """0 (easiest) to 4."""
        self.explanation = ""
        """As far as it has come."""

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return self._clock() - self._began

    def take(self, event: object) -> Moment:
        """Record ``event``, which may be of a kind that is not known here; gives it as a line."""
        match event:
            case StepTaken():
                self._grow(event)
                line = f"[{self._lanes[event.candidate] + 1}] {event.error or event.told}"
            case CandidateScored(lane, score):
                if lane in self._lanes:
                    index = self._lanes[lane]
                    self.attempts[index] = replace(self.attempts[index], score=score)
                line = f"[{self._lanes.get(lane, lane) + 1}] scored {score:.3f}"
            case BestSoFar(answer, _, confidence):
                self.best = event
                line = f"best so far: {answer} ({100 * confidence:.0f}%)"
            case DifficultyEstimated(bin_, score):
                self.difficulty = bin_
                line = f"difficulty {bin_ + 1} of 5 (score {score:.3f})"
            case StrategyChosen(strategy, reason):
                self.strategy = strategy
                line = f"strategy {strategy}: {reason}"
            case Explained(text):
                # It comes word by word; the time line has it in one piece.
                if self.explanation:
                    self.moments.pop()
                self.explanation += text
                line = f"explained: {self.explanation}"
            case _:
                line = str(getattr(event, "reason", "") or type(event).__name__)
        if isinstance(sure := getattr(event, "confidence", None), float):
            self.confidence = sure
            self.confidences += [] if self.confidences[-1:] == [sure] else [sure]
        elif getattr(event, "finished", False):
            self.confidence = None
        self.moments.append(Moment(round(self.seconds, 3), type(event).__name__, line))
        return self.moments[-1]

    def groups(self) -> list[AnswerGroup]:
        """The answers so far with their candidates, most first."""
        return grouped(self.attempts)

    def _grow(self, event: StepTaken) -> None:
        index = self._lanes.get(event.candidate)
        if index is None or not _goes_on(self.attempts[index], event):
            index = self._lanes[event.candidate] = len(self.attempts)
            self.attempts.append(Attempt(index + 1))
        before = self.attempts[index]
        values = before.values
        if len(event.steps) > len(before.steps):
            values = (*values, *((),) * (len(event.steps) - len(before.steps) - 1), event.values)
        self.attempts[index] = replace(
            before,
            steps=event.steps,
            values=(*values, *((),) * len(event.steps))[: len(event.steps)],
            finished=event.finished,
            answer=event.answer,
            error=event.error,
            doubts=event.doubts,
        )


def grouped(attempts: Sequence[Attempt]) -> list[AnswerGroup]:
    """The answers of ``attempts`` with their candidates, most first; of equally many the one seen first."""
    answered = [attempt for attempt in attempts if attempt.answer is not None]
    ids = group([attempt.answer or "" for attempt in answered], COMPARING_SECONDS)
    members: dict[int, list[Attempt]] = {}
    for id, attempt in zip(ids, answered, strict=True):
        members.setdefault(id, []).append(attempt)
    groups = [AnswerGroup(found[0].answer or "", tuple(found)) for found in members.values()]
    return sorted(groups, key=lambda group: -len(group.attempts))


def _goes_on(attempt: Attempt, event: StepTaken) -> bool:
    """Whether ``event`` is a step of ``attempt``, and not of the next candidate in its lane.

    Compared without white space: a paragraph is one step more, or a part of a step once that turns out to be longer.
    """
    return not attempt.finished and _bare(event.steps).startswith(_bare(attempt.steps))


def _bare(steps: Sequence[str]) -> str:
    return "".join("".join(steps).split())
