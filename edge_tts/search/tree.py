"""Search over steps under a process reward model: beam search, lookahead and DVTS.

All three are one loop over independent subtrees. A subtree holds a number of beams; in each round
every beam is expanded into ``m`` candidates of one more step, the verifier scores them, and the
best become the subtree's beams. Beam search (Snell et al. 2024, section 5.1) is one subtree of
n / m beams; DVTS (Beeching et al. 2024) is n / m subtrees of one beam each.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from edge_tts.core import Event, Outcome, Trace
from edge_tts.search.context import SearchContext
from edge_tts.search.selection import Choice, aggregate, best_scored, voters, weighted

MAX_ROUNDS = 40
"""Most steps of a trace (Snell et al. 2024, section 5.1)."""


@dataclass
class _Subtree:
    beams: int
    """How many may still be kept; a beam whose trace finished is spent."""
    nodes: list[Trace]
    """Unfinished traces to expand; at most ``beams``, fewer where candidates coincided."""


def beam(
    question: str,
    context: SearchContext,
    n: int,
    m: int,
    initial: Sequence[Trace] = (),
    *,
    weigh: bool = False,
) -> Generator[Event, None, Outcome]:
    """PRM beam search: ``n`` samples of the first step, the best n / m kept, each expanded into ``m``.

    Finished traces are put aside and the rest goes on; the best finished one wins in the end or,
    with ``weigh``, the best of the answer with the largest sum of scores. Finished ``initial``
    traces take part in that choice. Raises InputError without a verifier.
    """
    return (yield from _search(question, context, n, m, initial, lookahead=0, diverse=False, weigh=weigh))


def lookahead(
    question: str,
    context: SearchContext,
    n: int,
    m: int,
    k: int,
    initial: Sequence[Trace] = (),
    *,
    weigh: bool = False,
) -> Generator[Event, None, Outcome]:
    """Beam search that scores each candidate at the end of ``k`` further greedy steps.

    Costs n (k + 1) generations. A rollout that reaches an answer is put aside as a finished trace.
    """
    return (yield from _search(question, context, n, m, initial, lookahead=k, diverse=False, weigh=weigh))


def dvts(
    question: str,
    context: SearchContext,
    n: int,
    m: int,
    initial: Sequence[Trace] = (),
    *,
    weigh: bool = False,
) -> Generator[Event, None, Outcome]:
    """Diverse verifier tree search: n / m independent subtrees, the best of ``m`` kept in each."""
    return (yield from _search(question, context, n, m, initial, lookahead=0, diverse=True, weigh=weigh))


def _search(
    question: str,
    context: SearchContext,
    n: int,
    m: int,
    initial: Sequence[Trace],
    *,
    lookahead: int,
    diverse: bool,
    weigh: bool,
) -> Generator[Event, None, Outcome]:
    context.require_verifier("search over steps")
    root = context.root(question)
    finished = [trace for trace in initial if trace.finished]
    n = context.claim(n * (lookahead + 1)) // (lookahead + 1)
    beams = max(1, n // m)
    trees = [_Subtree(1, [root]) for _ in range(beams)] if diverse else [_Subtree(beams, [root])]
    lanes = [n // len(trees)] * len(trees)
    for _ in range(MAX_ROUNDS):
        trees, lanes = _alive(trees, lanes)
        if not trees or context.exhausted():
            break
        candidates, owners, names = yield from _expand(context, root, trees, lanes)
        rollouts = list(candidates)
        if lookahead:
            yield from context.advance(
                rollouts, [root] * len(rollouts), max_steps=lookahead, greedy=True, to_score=len(rollouts), names=names
            )
        scored = yield from context.score(question, rollouts, names=names)
        finished += [trace for trace in rollouts if trace.finished]
        if not scored:
            break
        values = [aggregate(trace.scores, context.aggregate) for trace in rollouts]
        _keep(trees, candidates if lookahead else rollouts, owners, values)
        lanes = [tree.beams * m for tree in trees]
        yield from context.announce(_choose(finished, context, weigh))
    yield from context.score(question, finished)
    choice = _choose(finished, context, weigh)
    yield from context.announce(choice)
    return context.outcome(choice, [*finished, *(node for tree in trees for node in tree.nodes)])


def _alive(trees: list[_Subtree], lanes: list[int]) -> tuple[list[_Subtree], list[int]]:
    """The subtrees that have something to expand, with the candidates due to each."""
    alive = [(tree, count) for tree, count in zip(trees, lanes, strict=True) if tree.nodes and count]
    return [tree for tree, _ in alive], [count for _, count in alive]


def _expand(
    context: SearchContext, root: Trace, trees: Sequence[_Subtree], lanes: Sequence[int]
) -> Generator[Event, None, tuple[list[Trace], list[int], list[int]]]:
    """One more step for every lane of every subtree: the distinct candidates, their subtrees and (first) lanes.

    Left out: lanes that were cancelled, and traces that used up their tokens without an answer.
    """
    pool: list[Trace] = []
    owners: list[int] = []
    for owner, (tree, count) in enumerate(zip(trees, lanes, strict=True)):
        pool += [tree.nodes[i % len(tree.nodes)] for i in range(count)]
        owners += [owner] * count
    parents = list(pool)
    yield from context.advance(pool, [root] * len(pool), max_steps=1, to_score=len(pool))
    distinct: dict[tuple[int, tuple[str, ...], bool], int] = {}
    for lane, (owner, parent, trace) in enumerate(zip(owners, parents, pool, strict=True)):
        if trace is not parent and (trace.finished or context.room(trace, root) > 0):
            distinct.setdefault((owner, trace.steps, trace.finished), lane)
    firsts = list(distinct.values())
    return [pool[lane] for lane in firsts], [owners[lane] for lane in firsts], firsts


def _keep(
    trees: Sequence[_Subtree], candidates: Sequence[Trace], owners: Sequence[int], values: Sequence[float]
) -> None:
    """Make the best candidates of each subtree its beams; a finished one among them ends its beam."""
    for owner, tree in enumerate(trees):
        mine = [i for i in range(len(candidates)) if owners[i] == owner]
        best = sorted(mine, key=lambda i: -values[i])[: tree.beams]
        tree.nodes = [candidates[i] for i in best if not candidates[i].finished]
        tree.beams -= len(best) - len(tree.nodes)


def _choose(finished: Sequence[Trace], context: SearchContext, weigh: bool) -> Choice:
    choose = weighted if weigh else best_scored
    return choose(voters(finished), context.aggregate, context.seconds_left)
