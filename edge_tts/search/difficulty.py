"""Predicted difficulty: how sure a handful of samples looks, without knowing the answer.

Snell et al. 2024, section 3.2: the predicted difficulty of a question is the mean final verifier score of samples
of it. The samples are handed on to the search that follows, and what they cost is charged like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from math import fsum

from edge_tts.answers.formulas import Timeout
from edge_tts.events import (
    Decided,
    Difficulty,
    DifficultyEstimated,
    StrategyChosen,
)
from edge_tts.search.allocation import BINS, StrategyTable
from edge_tts.search.controller import Controller
from edge_tts.search.selection import Aggregate, Choice, aggregate, majority, voters
from edge_tts.search.strategy import Strategy
from edge_tts.search.wave import Candidate, End, Proposer, Wave, Waves, traces


def probe_score(samples: Sequence[Candidate], how: Aggregate, scored: bool) -> float | None:
    """How easy ``samples`` make their question look, in [0, 1].

    The mean aggregated verifier score, 0 for a sample without an answer; None where there was no time to score them.
    Where there is no verifier (``scored`` is False), the share of samples that agree on the most frequent answer.
    """
    answered = voters(traces(samples))
    if not scored:
        return majority(answered).support * len(answered) / len(samples) if samples else 0.0
    if not all(trace.scores for trace in answered):
        return None
    return fsum(aggregate(trace.scores, how) for trace in answered) / len(samples) if samples else 0.0


class Auto:
    """Estimates the difficulty with a first wave of samples, looks the strategy up, and goes on from the samples.

    A vote goes on wave by wave, as the controller says; a search runs as it was looked up.
    """

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
            if score is None:
                self.reason = "there was no time to estimate the difficulty"
            else:
                yield self._estimated(self._table.bin(score), score)
                self.strategy, self.reason = self._table.choose(self._table.bin(score), controller.n)
                self._chosen = self._proposer()
        yield StrategyChosen(str(self.strategy), self.reason)
        if isinstance(self._chosen, Controller):
            return (yield from self._controlled(self._chosen, sampled))
        return (yield from self._chosen.waves(sampled))

    def _proposer(self) -> Proposer:
        """What runs the strategy that was looked up."""
        controller, strategy = self._controller, self.strategy
        if not strategy.is_vote:
            return strategy.proposer(controller.aggregate)
        weighs = controller.scores and (bool(controller.calibration.right) or strategy.needs_verifier)
        return replace(controller, n=strategy.n, scores=weighs)

    def _controlled(self, controller: Controller, sampled: Sequence[Candidate]) -> Waves:
        """Go on as the controller says; its confidence after the first wave is the difficulty, where none is known."""
        waves = controller.waves(sampled)
        with closing(waves):
            proposed = next(waves)
            while True:
                try:
                    if isinstance(proposed, Wave):
                        proposed = waves.send((yield proposed))
                        continue
                    yield proposed
                    if isinstance(proposed, Decided) and self.difficulty is None:
                        sure = proposed.confidence
                        yield self._estimated(min(BINS - 1, int((1 - sure) * BINS)), sure)
                    proposed = next(waves)
                except StopIteration as stop:
                    end: End = stop.value
                    return end

    def _estimated(self, bin: int, score: float) -> DifficultyEstimated:
        self.difficulty = Difficulty(bin, round(score, 4))
        return DifficultyEstimated(bin, self.difficulty.score)

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return self._chosen.choose(candidates, timeout)
