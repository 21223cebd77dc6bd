"""Predicted difficulty: how sure a handful of samples looks, without knowing the answer.

Snell et al. 2024, section 3.2: the predicted difficulty of a question is the mean final verifier score of samples
of it. The samples are handed on to the search that follows, and what they cost is charged like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from edge_tts.answers.formulas import Timeout
from edge_tts.core import Difficulty, DifficultyEstimated, StrategyChosen
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.selection import Aggregate, Choice, aggregate, majority
from edge_tts.search.strategy import Strategy
from edge_tts.search.wave import Candidate, End, Proposer, Wave, Waves, traces


def probe_score(samples: Sequence[Candidate], how: Aggregate, scored: bool) -> float:
    """How easy ``samples`` make their question look, in [0, 1].

    The mean aggregated verifier score, 0 for a sample without an answer; where there is no verifier (``scored`` is
    False), the share of samples that agree on the most frequent answer.
    """
    if not scored:
        return majority(traces(samples)).support
    scores = [aggregate(trace.scores, how) for trace in traces(samples) if trace.answer is not None]
    return fsum(scores) / len(samples) if samples else 0.0


class Auto:
    """Estimates the difficulty with a first wave of samples, looks the strategy up, and goes on from the samples."""

    needs_verifier = False

    def __init__(self, table: StrategyTable | None, generations: int, how: Aggregate, scored: bool) -> None:
        """``scored``: a verifier is loaded.

        Without a ``table`` it is a weighted vote or, without a verifier, a vote that stops once it is decided.
        """
        self._table, self._generations, self._how, self._scored = table, generations, how, scored
        self.difficulty: Difficulty | None = None
        self.strategy = Strategy.parse("weighted" if scored else "adaptive", generations)
        """What is run, once that is chosen."""
        self.reason = ""
        self._chosen: Proposer = self.strategy.proposer(how)

    @property
    def uses_scores(self) -> bool:
        return self._chosen.uses_scores

    @property
    def eager(self) -> bool:
        return self._chosen.eager

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        if self._table is None or self._generations <= self._table.probe:
            self.reason = "there is no strategy table" if self._table is None else "too few generations to probe first"
            sampled = list(initial)
        else:
            sampled = yield Wave(Wave.samples(self._table.probe), score="answers" if self._scored else "none")
            score = probe_score(sampled, self._how, self._scored)
            self.difficulty = Difficulty(self._table.bin(score), round(score, 4))
            yield DifficultyEstimated(self.difficulty.bin, self.difficulty.score)
            self.strategy, self.reason = self._table.choose(self.difficulty.bin, self._generations)
            self._chosen = self.strategy.proposer(self._how)
        yield StrategyChosen(str(self.strategy), self.reason)
        end: End = yield from self._chosen.waves(sampled)
        return end

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return self._chosen.choose(candidates, timeout)
