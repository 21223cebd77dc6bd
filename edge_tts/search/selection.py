"""Choosing an answer: aggregation of step scores, votes, and the test for a decided vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edge_tts.answers.equivalence import group
from edge_tts.answers.formulas import LONGEST_SECONDS, Timeout
from edge_tts.core import Trace

Aggregate = Literal["last", "min", "product", "mean"]
"""How the step scores of a trace become one number (Snell et al. 2024, appendix E compares them)."""
DECIDED_VOTE = 0.95
"""A vote is decided above this probability that its leader is the more frequent answer (Aggarwal et al. 2023)."""


@dataclass(frozen=True)
class Choice:
    """The trace chosen among several, or none."""

    best: Trace | None = None
    support: float = 0.0
    """Share of the (weighted) vote its answer got, in [0, 1]."""
    score: float = 0.0
    """Its own weight: an aggregated verifier score in [0, 1], or the support where nothing is scored."""
    among: tuple[int, ...] | None = None
    """Ids of the candidates that took part, each as often as it counted; None: all, once."""


def aggregate(scores: Sequence[float], how: Aggregate) -> float:
    """One number in [0, 1] for a trace; 0 for a trace without scores."""
    if not scores:
        return 0.0
    if how == "last":
        return scores[-1]
    if how == "min":
        return min(scores)
    if how == "product":
        return math.prod(scores)
    return math.fsum(scores) / len(scores)


def voters(traces: Sequence[Trace]) -> list[Trace]:
    """The traces that may be chosen: finished, with an answer."""
    return [trace for trace in traces if trace.finished and trace.answer is not None]


def majority(traces: Sequence[Trace], timeout: Timeout = LONGEST_SECONDS) -> Choice:
    """The first trace of the group of equivalent answers that weighs most.

    In a tie the group with the likeliest trace wins, by the mean of its tokens, then the one seen first.

    Votes weigh what :attr:`Trace.weight` says, 1 as a rule: then it is the largest group.

    ``timeout`` is what comparing formulas may take.
    """
    candidates = voters(traces)
    choice = _heaviest(candidates, [trace.weight for trace in candidates], timeout)
    return Choice(choice.best, choice.support, choice.support)


def weighted(traces: Sequence[Trace], how: Aggregate, timeout: Timeout = LONGEST_SECONDS) -> Choice:
    """Weighted best-of-N (Li et al. 2023): scores are summed over equivalent answers.

    Gives the best trace of the heaviest group. A trace there was no time to score gets the mean
    score of the others; where none is scored, or all are 0, this is ``majority``.
    """
    candidates = voters(traces)
    if not any(aggregate(trace.scores, how) for trace in candidates):
        return majority(candidates, timeout)
    return _heaviest(candidates, _score_weights(candidates, how), timeout)


def best_scored(traces: Sequence[Trace], how: Aggregate, timeout: Timeout = LONGEST_SECONDS) -> Choice:
    """Best-of-N: the scored trace with the highest score, the first among equals.

    Where none is scored, or all are 0, this is ``majority``.
    """
    candidates = [trace for trace in voters(traces) if trace.scores]
    weights = [aggregate(trace.scores, how) for trace in candidates]
    if not any(weights):
        return majority(traces, timeout)
    winner = max(range(len(candidates)), key=weights.__getitem__)
    ids = group([trace.vote or trace.answer or "" for trace in candidates], timeout)
    agreeing = math.fsum(weight for weight, id in zip(weights, ids, strict=True) if id == ids[winner])
    return Choice(candidates[winner], _share(agreeing, weights), weights[winner])


def hierarchical(chains: Sequence[Sequence[Trace]], how: Aggregate, timeout: Timeout = LONGEST_SECONDS) -> Choice:
    """Weighted best-of-N inside each chain of revisions, then across the chains' winners.

    Snell et al. 2024, section 6.1. Each winner weighs what its own best trace scored; without
    scores both stages are majority votes.
    """
    winners = [weighted(chain, how, timeout).best for chain in chains]
    return weighted([trace for trace in winners if trace is not None], how, timeout)


def _score_weights(candidates: Sequence[Trace], how: Aggregate) -> list[float]:
    """What each of ``candidates`` weighs by its scores.

    One that has none weighs the mean of the others; where no score is above 0, scores play no part.
    """
    known = [aggregate(trace.scores, how) for trace in candidates if trace.scores]
    if not any(known):
        return [trace.weight for trace in candidates]
    mean = math.fsum(known) / len(known)
    return [t.weight * (aggregate(t.scores, how) if t.scores else mean) for t in candidates]


def shares(
    traces: Sequence[Trace], chosen: Trace | None, how: Aggregate | None, timeout: Timeout = LONGEST_SECONDS
) -> tuple[tuple[str, float], ...]:
    """The answers of ``traces`` and their share of the vote, most first; ``how`` says how scores weigh, None: not.

    Equivalent answers are one, written as ``chosen`` writes it, else as the first of them does.
    """
    candidates = voters(traces)
    ids = group([trace.vote or trace.answer or "" for trace in candidates], timeout)
    names: dict[int, str] = {}
    totals: dict[int, float] = {}
    weights = _score_weights(candidates, how) if how else [trace.weight for trace in candidates]
    for id, trace, weight in zip(ids, candidates, weights, strict=True):
        answer = trace.answer or ""
        names[id] = answer if chosen is not None and answer == chosen.answer else names.get(id, answer)
        totals[id] = totals.get(id, 0.0) + weight
    everything = math.fsum(totals.values())
    ordered = sorted(totals, key=lambda id: -totals[id])
    return tuple((names[id], round(totals[id] / everything, 4)) for id in ordered) if everything else ()


def decided(first: int, second: int) -> float:
    """Probability that the leading answer of a vote is really the more frequent one.

    ``first`` and ``second`` are the votes of the leader and the runner-up. This is the Beta
    criterion of adaptive consistency (Aggarwal et al. 2023): P(p > 1/2) for
    p ~ Beta(first + 1, second + 1), which for whole numbers is a binomial tail.
    """
    draws = first + second + 1
    ways: int = sum(math.comb(draws, k) for k in range(first + 1))
    return ways / (1 << draws)


def is_decided(pool: Sequence[Trace]) -> bool:
    """Whether adaptive consistency stops at these traces."""
    ids = group([trace.vote or trace.answer or "" for trace in voters(pool)])
    first, second = [*sorted(Counter(ids).values(), reverse=True), 0, 0][:2]
    return decided(first, second) > DECIDED_VOTE


def _heaviest(candidates: Sequence[Trace], weights: Sequence[float], timeout: Timeout) -> Choice:
    if not candidates:
        return Choice()
    ids = group([trace.vote or trace.answer or "" for trace in candidates], timeout)
    totals: dict[int, list[float]] = {}
    for id, weight in zip(ids, weights, strict=True):
        totals.setdefault(id, []).append(weight)
    sums = {id: math.fsum(parts) for id, parts in totals.items()}
    likeliest = dict.fromkeys(sums, -math.inf)
    for trace, id in zip(candidates, ids, strict=True):
        likeliest[id] = max(likeliest[id], trace.mean_logprob)
    heaviest = max(sums, key=lambda id: (round(sums[id], 9), likeliest[id]))
    members = [index for index, id in enumerate(ids) if id == heaviest]
    winner = max(members, key=weights.__getitem__)
    return Choice(candidates[winner], _share(sums[heaviest], weights), weights[winner])


def _share(part: float, weights: Sequence[float]) -> float:
    total = math.fsum(weights)
    return min(1.0, part / total) if total > 0 else 0.0
