"""Sequential revisions, and any mix of them with parallel sampling (Snell et al. 2024, section 6)."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from edge_tts.core import Event, Outcome, Trace
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT
from edge_tts.search.context import SearchContext
from edge_tts.search.selection import hierarchical, voters


def revise(
    question: str, context: SearchContext, sequential: int, parallel: int, initial: Sequence[Trace] = ()
) -> Generator[Event, None, Outcome]:
    """``parallel`` chains of ``sequential`` attempts, each made with the last four before it in context.

    The chains advance together, one attempt a round, so that the batch is full. ``initial``
    samples become the first attempts, dealt out to the chains in turn. The answer is selected
    inside each chain and then across chains: weighted by verifier scores, or by votes where there
    are none.
    """
    root = context.root(question)
    start = list(initial)
    yield from context.advance(start, [root] * len(start), to_score=len(start))
    chains = [start[first::parallel] for first in range(parallel)]
    while not context.exhausted():
        due = [index for index, chain in enumerate(chains) if len(chain) < sequential]
        due = due[: context.claim(len(due))]
        if not due:
            break
        yield from _attempt(question, context, chains, due)
        choice = hierarchical(chains, context.aggregate, context.seconds_left)
        yield from context.announce(choice)
    yield from _score(question, context, chains)
    choice = hierarchical(chains, context.aggregate, context.seconds_left)
    yield from context.announce(choice)
    return context.outcome(choice, [trace for chain in chains for trace in chain])


def _attempt(
    question: str, context: SearchContext, chains: list[list[Trace]], due: Sequence[int]
) -> Generator[Event, None, None]:
    """One more attempt for each chain in ``due``, scored where there is a verifier and time."""
    roots = [context.root(question, _attempts(context, chain)) for chain in chains]
    pool = list(roots)
    yield from context.advance(pool, roots, due, to_score=len(due))
    for index in due:
        chains[index].append(pool[index])
    yield from _score(question, context, chains)


def _score(question: str, context: SearchContext, chains: list[list[Trace]]) -> Generator[Event, None, bool]:
    """Score the finished attempts of all chains that are not scored yet; candidates are chain numbers."""
    places = [(c, i) for c, chain in enumerate(chains) for i, trace in enumerate(chain) if voters([trace])]
    pool = [chains[c][i] for c, i in places]
    scored = yield from context.score(question, pool, names=[c for c, _ in places])
    for (c, i), trace in zip(places, pool, strict=True):
        chains[c][i] = trace
    return scored


def _attempts(context: SearchContext, chain: Sequence[Trace]) -> list[str]:
    """The texts of the latest attempts. Unfinished ones are left out: a revision model never saw any."""
    texts = [context.prompts.step_delimiter.join(trace.steps) for trace in voters(chain)]
    return texts[-ATTEMPTS_IN_CONTEXT:]
