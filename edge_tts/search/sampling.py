"""Independent samples and what to make of them: greedy, votes, adaptive consistency, best-of-N."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from edge_tts.answers.equivalence import group
from edge_tts.answers.formulas import LONGEST_SECONDS, Timeout
from edge_tts.core import Event, Outcome, StepTaken, Trace
from edge_tts.search.context import SearchContext
from edge_tts.search.selection import Choice, best_scored, decided, majority, voters, weighted

ADAPTIVE_ROUND = 4
"""Samples drawn between two looks at the vote; four equal answers are the fewest that decide one."""
ADAPTIVE_CONFIDENCE = 0.95
"""The threshold of Aggarwal et al. 2023."""


def sample(
    question: str, n: int, context: SearchContext, initial: Sequence[Trace] = (), *, to_score: int = 0
) -> Generator[Event, None, list[Trace]]:
    """Run ``initial`` and fresh traces, ``n`` in all, to their ends; gives the traces, finished or not.

    ``to_score`` is how many of them the caller will have scored afterwards.
    """
    root = context.root(question)
    pool = list(initial)
    pool += [root] * context.claim(n - len(pool))
    with closing(context.advance(pool, [root] * len(pool), to_score=to_score)) as events:
        for event in events:
            yield event
            if isinstance(event, StepTaken) and event.finished:
                yield from context.announce(majority(pool, context.seconds_left))
    return pool


def greedy(question: str, context: SearchContext, initial: Sequence[Trace] = ()) -> Generator[Event, None, Outcome]:
    """One trace at temperature 0. Finished ``initial`` samples stand in where it finds no answer."""
    root = context.root(question)
    pool = [root] * context.claim(1)
    yield from context.advance(pool, [root] * len(pool), greedy=True)
    choice = majority(pool, context.seconds_left)
    if choice.best is None:
        choice = majority(initial, context.seconds_left)
    yield from context.announce(choice)
    return context.outcome(choice, [*initial, *pool])


def majority_vote(
    question: str, context: SearchContext, n: int, initial: Sequence[Trace] = ()
) -> Generator[Event, None, Outcome]:
    """The most frequent answer of ``n`` samples (self-consistency, Wang et al. 2022)."""
    pool = yield from sample(question, n, context, initial)
    choice = majority(pool, context.seconds_left)
    yield from context.announce(choice)
    return context.outcome(choice, pool)


def adaptive_consistency(
    question: str, context: SearchContext, n: int, initial: Sequence[Trace] = ()
) -> Generator[Event, None, Outcome]:
    """Majority vote that stops before ``n`` samples once the vote is decided (Aggarwal et al. 2023)."""
    pool = yield from sample(question, len(initial), context, initial)
    while not (settled := is_decided(pool, context.seconds_left)) and len(pool) < n and not context.exhausted():
        before = len(pool)
        pool = yield from sample(question, min(n, before + ADAPTIVE_ROUND), context, pool)
        if len(pool) == before:
            break
    choice = majority(pool, context.seconds_left)
    yield from context.announce(choice)
    return context.outcome(choice, pool, decided=settled and len(pool) < n)


def best_of_n(
    question: str, context: SearchContext, n: int, initial: Sequence[Trace] = ()
) -> Generator[Event, None, Outcome]:
    """The sample of ``n`` that the verifier scores highest (Cobbe et al. 2021)."""

    def choose(pool: Sequence[Trace]) -> Choice:
        return best_scored(pool, context.aggregate, context.seconds_left)

    return (yield from _verified(question, context, n, initial, choose))


def weighted_best_of_n(
    question: str, context: SearchContext, n: int, initial: Sequence[Trace] = ()
) -> Generator[Event, None, Outcome]:
    """The answer of ``n`` samples with the largest sum of verifier scores (Li et al. 2023)."""

    def choose(pool: Sequence[Trace]) -> Choice:
        return weighted(pool, context.aggregate, context.seconds_left)

    return (yield from _verified(question, context, n, initial, choose))


def _verified(
    question: str,
    context: SearchContext,
    n: int,
    initial: Sequence[Trace],
    choose: Callable[[Sequence[Trace]], Choice],
) -> Generator[Event, None, Outcome]:
    context.require_verifier("best-of-N")
    pool = yield from sample(question, n, context, initial, to_score=max(n, len(initial)))
    finished = [i for i, trace in enumerate(pool) if voters([trace])]
    yield from context.score(question, pool, finished)
    choice = choose(pool)
    yield from context.announce(choice)
    return context.outcome(choice, pool)


def is_decided(pool: Sequence[Trace], timeout: Timeout = LONGEST_SECONDS) -> bool:
    """Whether adaptive consistency stops at these traces; ``timeout`` bounds comparing formulas."""
    ids = group([trace.answer or "" for trace in voters(pool)], timeout)
    votes = [*sorted((ids.count(id) for id in set(ids)), reverse=True), 0, 0]
    return decided(votes[0], votes[1]) > ADAPTIVE_CONFIDENCE
