"""Strategies of a fixed number of independent samples: greedy, votes, best-of-N."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_tts.answers.formulas import Timeout
from edge_tts.search.selection import Aggregate, Choice, best_scored, majority, weighted
from edge_tts.search.wave import Candidate, End, Wave, Waves, traces


@dataclass
class Greedy:
    """One trace at temperature 0. Earlier samples vote where it finds no answer."""

    needs_verifier = uses_scores = False
    eager = True
    _earlier: int = field(default=0, init=False)

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        self._earlier = len(initial)
        grown = yield Wave(Wave.samples(1), greedy=True)
        return End([*initial, *grown])

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        pool = traces(candidates)
        choice = majority(pool[self._earlier :], timeout)
        return choice if choice.best is not None else majority(pool[: self._earlier], timeout)


@dataclass
class Majority:
    """The most frequent answer of ``n`` samples (self-consistency, Wang et al. 2022)."""

    n: int
    needs_verifier = uses_scores = False
    eager = True

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        fresh = Wave.samples(self.n - len(initial), len(initial))
        reserve = max(self.n, len(initial)) if self.uses_scores else 0
        grown = yield Wave(fresh, resume=tuple(initial), reserve=reserve)
        return End(grown)

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return majority(traces(candidates), timeout)


@dataclass
class BestOfN(Majority):
    """The sample of ``n`` that the verifier scores highest (Cobbe et al. 2021)."""

    aggregate: Aggregate = "last"
    needs_verifier = uses_scores = True

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return best_scored(traces(candidates), self.aggregate, timeout)


@dataclass
class Weighted(BestOfN):
    """The answer of ``n`` samples with the largest sum of verifier scores (weighted best-of-N, Li et al. 2023)."""

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return weighted(traces(candidates), self.aggregate, timeout)
