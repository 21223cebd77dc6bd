"""How sure a search may be of its leading answer: one probability, from what its samples say.

Without a fit it is the posterior mean of a vote. The first sample for the leader names the answer; of the n - 1 others
v - 1 agree with it, which with a uniform prior is Beta(v, n - v + 1) with the mean v / (n + 1). A single sample, with
which none can agree, is worth 1/2. A :class:`Calibration` is fitted for a model on problems whose answers are known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from edge_tts.answers.equivalence import group
from edge_tts.answers.formulas import LONGEST_SECONDS, Timeout
from edge_tts.errors import InputError
from edge_tts.search.selection import Aggregate, aggregate, voters
from edge_tts.search.wave import Candidate


@dataclass(frozen=True)
class Standing:
    """How the samples of a question stand: what a confidence is computed from."""

    samples: int
    """Candidates of the usual way of asking that ended or ran out of room, with or without an answer."""
    votes: int = 0
    """Those with the leading answer."""
    second: int = 0
    """Those with the answer that comes second."""
    logprob: float = 0.0
    """Mean log-probability of a token, over the candidates with the leading answer, whatever the way of asking; over
    all where there is none. At most 0."""
    score: float | None = None
    """Mean verifier score of these, in [0, 1]; None where one asked in the usual way was not scored."""
    other_samples: int = 0
    """Candidates of other ways of asking that ended."""
    other_votes: int = 0
    """Those of them with the leading answer."""
    runner_up: int = 0
    """Votes for the answer that comes second, whatever the way of asking."""

    @classmethod
    def of(
        cls,
        candidates: Sequence[Candidate],
        answer: str | None,
        how: Aggregate = "last",
        timeout: Timeout = LONGEST_SECONDS,
    ) -> Self:
        """The standing of ``answer``, the one a strategy would choose, among ``candidates`` of the same question."""
        ended = [candidate for candidate in candidates if not candidate.can_grow]
        usual = sum(c.way == 0 for c in ended)
        answered = [candidate for candidate in ended if voters([candidate.trace])]
        ids = group([c.trace.vote or c.trace.answer or "" for c in answered], timeout)
        leading = next((id for c, id in zip(answered, ids, strict=True) if c.trace.answer == answer), None)
        if leading is None:
            logprob = _mean([c.trace.mean_logprob for c in ended])
            return cls(usual, logprob=logprob, other_samples=len(ended) - usual)
        counts = Counter(id for c, id in zip(answered, ids, strict=True) if c.way == 0)
        agreeing = [c for c, id in zip(answered, ids, strict=True) if id == leading]
        judged = [c.trace.scores for c in agreeing if c.way == 0 or c.trace.scores]
        return cls(
            samples=usual,
            votes=counts[leading],
            second=max((count for id, count in counts.items() if id != leading), default=0),
            logprob=_mean([c.trace.mean_logprob for c in agreeing]),
            score=_mean([aggregate(scores, how) for scores in judged]) if judged and all(judged) else None,
            other_samples=len(ended) - usual,
            other_votes=sum(c.way != 0 for c in agreeing),
            runner_up=max((count for id, count in Counter(ids).items() if id != leading), default=0),
        )

    @property
    def total_votes(self) -> int:
        """Votes for the leading answer, whatever the way of asking."""
        return self.votes + self.other_votes

    @property
    def posterior(self) -> float:
        """Posterior mean of the share of other samples that agree with the leader, in (0, 1); 0 without a leader."""
        return self.total_votes / (self.samples + self.other_samples + 1)

    @property
    def features(self) -> dict[str, float]:
        """What a fit weighs, by name."""
        others = self.other_samples - self.other_votes
        return {
            "bias": 1.0,
            "vote": _logit((self.votes + 0.5) / (self.samples + 1)),
            "margin": (self.votes - self.second) / max(1, self.samples),
            "size": math.log2(max(1, self.samples)),
            "logprob": self.logprob,
            "score": 0.0 if self.score is None else _logit(0.01 + 0.98 * self.score),
            "agreement": math.log((self.other_votes + 0.5) / (others + 0.5)),
        }


@dataclass(frozen=True)
class Calibration:
    """Logistic fits over :attr:`Standing.features`, for one model and way of asking."""

    right: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Weights of "the leading answer is right"; empty: not fitted."""
    reachable: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Weights of "the answer of a vote of all samples will be right"; empty: not fitted."""

    def __post_init__(self) -> None:
        known = Standing(0).features
        for name in (*self.right, *self.reachable):
            if name not in known:
                raise InputError(
                    f"a calibration weighs {name!r}, which is none of {', '.join(known)}; correct the name"
                )

    @property
    def weighs_scores(self) -> bool:
        """Whether it was fitted on votes that weigh what a verifier gives them."""
        return "score" in self.right

    def where(self, scored: bool) -> Calibration:
        """This one, or none where it weighs scores and none are made."""
        return self if scored or not self.weighs_scores else UNCALIBRATED

    def weighs(self, scored: bool) -> bool:
        """Whether votes weigh scores where all are ``scored``: without a fit they do, else as it was fitted."""
        return scored and (self.weighs_scores or not self.right)

    def confidence(self, standing: Standing) -> float:
        """Probability in [0, 1] that the leading answer is right; 0 where nothing answered."""
        if not standing.total_votes:
            return 0.0
        return _probability(self.right, standing) if self.right else standing.posterior

    def prospect(self, standing: Standing) -> float | None:
        """Probability in [0, 1] that a vote of all samples would be right; None where that is not fitted."""
        return _probability(self.reachable, standing) if self.reachable else None


def _probability(weights: Mapping[str, float], standing: Standing) -> float:
    features = standing.features
    total = math.fsum(weight * features[name] for name, weight in weights.items())
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


UNCALIBRATED = Calibration()
