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
from edge_tts.search.controller import Controller
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

    def __init__(self, table: StrategyTable | None, controller: Controller) -> None:
        """Without a ``table``, or with too few generations for its probe, ``controller`` decides alone."""
        self._table, self._controller = table, controller
        self.difficulty: Difficulty | None = None
        self.strategy = Strategy("adaptive", controller.n)
        """What is run, once that is chosen."""
        self.reason = "decided after every wave"
        self._chosen: Proposer = controller

    @property
    def uses_scores(self) -> bool:
        return self._chosen.uses_scores

    @property
    def eager(self) -> bool:
        return self._chosen.eager

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        controller, sampled = self._controller, list(initial)
        if self._table is not None and controller.n > self._table.probe:
            sampled = yield Wave(Wave.samples(self._table.probe), score="answers" if controller.scores else "none")
            score = probe_score(sampled, controller.aggregate, controller.scores)
            self.difficulty = Difficulty(self._table.bin(score), round(score, 4))
            yield DifficultyEstimated(self.difficulty.bin, self.difficulty.score)
            self.strategy, self.reason = self._table.choose(self.difficulty.bin, controller.n)
            self._chosen = self.strategy.proposer(controller.aggregate)
        yield StrategyChosen(str(self.strategy), self.reason)
        end: End = yield from self._chosen.waves(sampled)
        return end

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return self._chosen.choose(candidates, timeout)
