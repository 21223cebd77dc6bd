"""Search over steps under a process reward model: beam search, lookahead and DVTS.

All three are one loop over independent subtrees. A subtree holds a number of beams; in each round every beam is
expanded into ``m`` candidates of one more step, the verifier scores them, and the best become the subtree's
beams. Beam search (Snell et al. 2024, section 5.1) is one subtree of n / m beams; DVTS (Beeching et al. 2024)
is n / m subtrees of one beam each. Lookahead scores each candidate at the end of k further greedy steps.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from edge_tts.answers.formulas import Timeout
from edge_tts.events import Event
from edge_tts.search.selection import Aggregate, Choice, aggregate, weighted
from edge_tts.search.wave import Candidate, End, Start, Wave, Waves, traces

MAX_ROUNDS = 40
"""Most steps of a trace (Snell et al. 2024, section 5.1)."""


@dataclass
class _Subtree:
    beams: int
    """How many are kept."""
    nodes: list[Candidate]
    """Unfinished candidates to expand; at most ``beams``, fewer where candidates coincided."""


_Branch = tuple[_Subtree, Candidate]


@dataclass
class TreeSearch:
    """Beam search; with ``lookahead`` steps of greedy rollout, or with ``diverse`` subtrees (DVTS).

    ``n`` candidates of the first step, the best n / m kept and each expanded into ``m``. Finished traces are put
    aside, their places go to the next best, and the search ends when ``n`` traces have finished or none is left. The
    answer is the one with the largest sum of scores over all that finished, ``initial`` candidates included.
    """

    n: int
    m: int
    lookahead: int = 0
    diverse: bool = False
    aggregate: Aggregate = "last"
    needs_verifier = uses_scores = True
    eager = False

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        kept = [candidate for candidate in initial if candidate.trace.finished]
        finished = list(kept)
        grown = yield self._step(Wave.samples(self.n // self._count(self.n) * self._count(self.n)), self.lookahead + 1)
        count = self._count(len(grown))
        beams = max(1, len(grown) // self.m) // count
        trees = [_Subtree(beams, []) for _ in range(count)]
        lanes: list[tuple[_Subtree, Candidate | None]] = [(t, None) for t in trees for _ in range(len(grown) // count)]
        for rounds_left in reversed(range(MAX_ROUNDS)):
            branches = _distinct(lanes, grown)
            ends = yield from self._scored([candidate for _, candidate in branches])
            finished += [end for end in ends if end.trace.finished]
            ended = len(ends) < len(branches)  # the search was over before the rollouts
            if not branches or ended or not all(end.trace.scores for end in ends):
                break
            _keep(trees, branches, [aggregate(end.trace.scores, self.aggregate) for end in ends])
            trees = [tree for tree in trees if tree.nodes]
            lanes = [(tree, tree.nodes[i % len(tree.nodes)]) for tree in trees for i in range(tree.beams * self.m)]
            if not lanes or not rounds_left or len(finished) - len(kept) >= self.n:
                break
            grown = yield self._step(tuple(Start(i, parent) for i, (_, parent) in enumerate(lanes)), generations=0)
        return End([*finished, *(node for tree in trees for node in tree.nodes)])

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        # Several rollouts may end in the same text: that is one attempt.
        distinct = list({candidate.trace.steps: candidate for candidate in candidates}.values())
        choice = weighted(traces(distinct), self.aggregate, timeout)
        return replace(choice, among=tuple(candidate.id for candidate in distinct))

    def _count(self, n: int) -> int:
        """Number of subtrees for ``n`` candidates."""
        return max(1, n // self.m) if self.diverse else 1

    def _step(self, starts: tuple[Start, ...], generations: int) -> Wave:
        """One more step for each lane; with lookahead the scores come after the rollouts."""
        return Wave(starts, steps=1, generations=generations, score="none" if self.lookahead else "grown")

    def _scored(self, candidates: Sequence[Candidate]) -> Generator[Wave | Event, list[Candidate], list[Candidate]]:
        """What the candidates' scores are read from: the ends of their greedy rollouts, or themselves."""
        if not self.lookahead or not candidates:
            return list(candidates)
        rollouts = tuple(Start(candidate.name, candidate) for candidate in candidates)
        return (yield Wave(rollouts, steps=self.lookahead, greedy=True, generations=0, score="all"))


def _distinct(
    lanes: Sequence[tuple[_Subtree, Candidate | None]], grown: Sequence[Candidate]
) -> list[tuple[_Subtree, Candidate]]:
    """Each subtree's distinct candidates that grew and either finished or can grow on."""
    distinct: dict[tuple[int, tuple[str, ...], bool], tuple[_Subtree, Candidate]] = {}
    for (tree, parent), candidate in zip(lanes, grown, strict=False):
        trace = candidate.trace
        length = len(parent.trace.tokens) if parent else candidate.prompt_tokens
        if len(trace.tokens) > length and (trace.finished or candidate.can_grow):
            distinct.setdefault((id(tree), trace.steps, trace.finished), (tree, candidate))
    return list(distinct.values())


def _keep(trees: Sequence[_Subtree], branches: Sequence[_Branch], values: Sequence[float]) -> None:
    """Make the best unfinished candidates of each subtree its beams."""
    for tree in trees:
        mine = [i for i, (owner, candidate) in enumerate(branches) if owner is tree and not candidate.trace.finished]
        best = sorted(mine, key=lambda i: -values[i])[: tree.beams]
        tree.nodes = [branches[i][1] for i in best]
