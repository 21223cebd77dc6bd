"""Predicted difficulty: how sure a handful of samples looks, without knowing the answer.

Snell et al. 2024, section 3.2: the predicted difficulty of a question is the mean final verifier
score of samples of it. The samples are handed on to the search that follows, and what they cost is
charged like everything else.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import fsum

from edge_tts.core import Event, Trace
from edge_tts.search.context import SearchContext
from edge_tts.search.selection import aggregate, majority


@dataclass(frozen=True)
class Probe:
    """The samples a difficulty was estimated from."""

    traces: tuple[Trace, ...]
    score: float
    """Mean aggregated verifier score in [0, 1], 0 for a sample without an answer; where there is no
    verifier, the share of samples that agree on the most frequent answer."""


def probe(question: str, context: SearchContext, samples: int) -> Generator[Event, None, Probe]:
    """Draw and score ``samples`` traces of ``question``; they count against the budget."""
    root = context.root(question)
    count = context.claim(samples)
    pool, roots = [root] * count, [root] * count
    yield from context.advance(pool, roots, to_score=count)
    if context.verifier is None:
        return Probe(tuple(pool), majority(pool, context.seconds_left).support)
    yield from context.score(question, pool, [i for i, trace in enumerate(pool) if trace.answer is not None])
    scores = [aggregate(t.scores, context.aggregate) for t in pool if t.answer is not None]
    return Probe(tuple(pool), fsum(scores) / count if count else 0.0)
