"""How sure a search may be of its leading answer: one probability, from what its samples say.

Without a fit it is the posterior mean of a vote: with v of n samples for the leader and a uniform prior, Beta(v + 1,
n - v + 1). A fit (:class:`Calibration`) corrects this number for a model, by problems whose answers are known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from edge_tts.answers.equivalence import group
from edge_tts.answers.formulas import LONGEST_SECONDS, Timeout
from edge_tts.search.selection import Aggregate, aggregate, voters
from edge_tts.search.wave import Candidate


@dataclass(frozen=True)
class Standing:
    """How the samples of a question stand: what a confidence is computed from."""

    samples: int
    """Traces that ended or ran out of room, with or without an answer."""
    votes: int = 0
    """Those with the leading answer."""
    second: int = 0
    """Those with the answer that comes second."""
    distinct: int = 0
    """Different answers."""
    logprob: float = 0.0
    """Mean log-probability of a token, over the traces with the leading answer; at most 0."""
    score: float | None = None
    """Mean verifier score of those traces, in [0, 1]; None where one was not scored."""

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
        answered = [candidate for candidate in ended if voters([candidate.trace])]
        if answer is None or not answered:
            return cls(len(ended))
        ids = group([c.trace.vote or c.trace.answer or "" for c in answered], timeout)
        leading = next((id for c, id in zip(answered, ids, strict=True) if c.trace.answer == answer), None)
        agreeing = [c for c, id in zip(answered, ids, strict=True) if id == leading]
        if not agreeing:
            return cls(len(ended))
        counts = Counter(ids)
        scores = [aggregate(c.trace.scores, how) for c in agreeing if c.trace.scores]
        logprobs = [c.trace.logprob / max(1, len(c.trace.tokens) - c.prompt_tokens) for c in agreeing]
        return cls(
            len(ended),
            len(agreeing),
            max((count for id, count in counts.items() if id != leading), default=0),
            len(counts),
            math.fsum(logprobs) / len(logprobs),
            math.fsum(scores) / len(scores) if len(scores) == len(agreeing) else None,
        )

    @property
    def posterior(self) -> float:
        """Posterior mean of the leader's share of the vote, in (0, 1); 0 without a leader."""
        return (self.votes + 1) / (self.samples + 2) if self.votes else 0.0


def confidence(standing: Standing) -> float:
    """Probability in [0, 1] that the leading answer is right."""
    return standing.posterior
