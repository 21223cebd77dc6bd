"""The controller: looks at every wave of samples and stops, goes on, or asks in another way.

It weighs two probabilities (:mod:`edge_tts.search.confidence`): that the leading answer is right, and that a vote of
all samples would be. It stops where the first is high, and where the second is hardly higher: more samples of the same
kind would not help. Then another way of asking may, since formats of reasoning err on different problems.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from edge_tts.answers.formulas import LONGEST_SECONDS, Timeout
from edge_tts.errors import InputError
from edge_tts.events import Decided
from edge_tts.search.confidence import UNCALIBRATED, Calibration, Standing
from edge_tts.search.selection import DECIDED_VOTE, Aggregate, Choice, decided, majority, weighted
from edge_tts.search.wave import Candidate, End, Start, Wave, Waves, traces

WAVE = 4
"""Samples of a wave without a fit; four equal answers are the fewest that decide a vote then."""


@dataclass(frozen=True)
class Pacing:
    """When a controller stops, and how large its waves are. Raises InputError for values out of range."""

    first: int = WAVE
    """Samples of the first wave."""
    wave: int = WAVE
    """Samples of the waves that follow."""
    target: float = 0.95
    """Confidence that is enough, in (0, 1]."""
    least_gain: float = 0.02
    """Expected rise of the confidence, in [0, 1), below which samples of the same kind end."""
    other: int = 0
    """Samples asked for in the other way before the search ends below the target; 0: none."""
    look_after: int = 0
    """Steps after which the verifier looks at a sample that is not finished; 0: it does not."""
    give_up: float = 0.0
    """Samples that score less then end there; in [0, 1]."""

    def __post_init__(self) -> None:
        if self.first < 1 or self.wave < 1 or self.other < 0:
            raise InputError(f"waves need at least 1 sample; got first={self.first}, wave={self.wave}")
        if not 0 < self.target <= 1 or not 0 <= self.least_gain < 1:
            raise InputError(
                f"target must be in (0, 1] and least_gain in [0, 1); got {self.target:g} and {self.least_gain:g}"
            )
        if self.look_after < 0 or not 0 <= self.give_up <= 1:
            raise InputError(
                f"look_after must be 0 or more and give_up in [0, 1]; got {self.look_after} and {self.give_up:g}"
            )


@dataclass
class Controller:
    """A vote of at most ``n`` samples that looks after every wave. Without a fit it is adaptive consistency."""

    n: int
    calibration: Calibration = UNCALIBRATED
    pacing: Pacing = field(default_factory=Pacing)
    aggregate: Aggregate = "last"
    scores: bool = False
    """Whether answers weigh what a verifier gives them."""
    ways: int = 1
    """Ways of asking that the task has."""
    needs_verifier = False
    eager = True

    @property
    def uses_scores(self) -> bool:
        return self.scores

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        pool = list(initial)
        if pool:
            pool = yield Wave(resume=tuple(pool), score=self._scored)
        while True:
            action = "sample"
            if pool:
                judged, reason = self._judge(pool)
                yield judged
                if judged.action == "stop":
                    return End(pool, reason)
                action = judged.action
            starts = tuple(self._starts(pool, action))
            grown = yield from self._grown(starts, pool)
            if len(grown) == len(pool):
                if pool:
                    yield replace(judged, action="stop", reason="nothing is left of the budget or the time")
                return End(pool)
            pool = grown

    def _grown(
        self, starts: tuple[Start, ...], pool: Sequence[Candidate]
    ) -> Generator[Wave, list[Candidate], list[Candidate]]:
        """``pool`` and the samples of a wave; those that the verifier thinks lost on the way end there."""
        steps, below = self.pacing.look_after, self.pacing.give_up
        if self.scores and steps and below:
            pool = yield Wave(starts, resume=tuple(pool), steps=steps, score="grown", give_up=below)
            starts = ()
        return (yield Wave(starts, resume=tuple(pool), score=self._scored))

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        pool = traces(candidates)
        return weighted(pool, self.aggregate, timeout) if self.scores else majority(pool, timeout)

    @property
    def _scored(self) -> Literal["none", "answers"]:
        return "answers" if self.scores else "none"

    def _starts(self, pool: Sequence[Candidate], action: str) -> Iterator[Start]:
        if action == "other":
            return iter(Wave.samples(min(self.pacing.other, self.n - len(pool)), len(pool), way=1))
        size = self.pacing.wave if pool else self.pacing.first
        return iter(Wave.samples(min(size, self.n - len(pool)), len(pool)))

    def standing(self, pool: Sequence[Candidate]) -> Standing:
        """How the samples of ``pool`` stand."""
        best = self.choose(pool, LONGEST_SECONDS).best
        return Standing.of(pool, best.answer if best else None, self.aggregate)

    def _judge(self, pool: Sequence[Candidate]) -> tuple[Decided, str | None]:
        """What to do when ``pool`` is there, and why; for a stop also the search's stop reason."""
        standing = self.standing(pool)
        sure = self.calibration.confidence(standing)
        prospect = self.calibration.prospect(standing)
        gain = (1.0 if prospect is None else prospect) - sure

        def said(action: str, why: str, reason: str | None = None) -> tuple[Decided, str | None]:
            return Decided(action, len(pool), sure, why, round(gain, 4)), reason

        if len(pool) >= self.n:
            return said("stop", f"all {self.n} samples are drawn")
        if not self.calibration.right:
            if decided(standing.total_votes, standing.runner_up) > DECIDED_VOTE:
                return said("stop", "the vote is settled", "decided")
            return said("sample", "the vote is open")
        if sure >= self.pacing.target:
            return said("stop", f"{sure:.0%} sure is enough", "sure")
        if self._settled(pool, standing):
            return said("stop", "no other answer can overtake the leading one", "decided")
        if prospect is None or gain >= self.pacing.least_gain:
            return said("sample", f"{sure:.0%} sure, and more samples may bring {gain:.0%} more")
        if self.pacing.other and self.ways > 1 and not standing.other_samples:
            return said("other", f"{sure:.0%} sure: another format may help more")
        return said("stop", "more samples would hardly change the answer", "no gain")

    def _settled(self, pool: Sequence[Candidate], standing: Standing) -> bool:
        """Whether the votes that are left cannot change which answer leads; not said where votes weigh differently."""
        if self.scores or len({candidate.trace.weight for candidate in pool}) > 1:
            return False
        return standing.total_votes > standing.runner_up + self.n - len(pool)
