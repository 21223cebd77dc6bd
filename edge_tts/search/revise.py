"""Sequential revisions, and any mix of them with parallel sampling (Snell et al. 2024, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_tts.answers.formulas import Timeout
from edge_tts.core import Trace
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT
from edge_tts.search.selection import Aggregate, Choice, hierarchical, voters
from edge_tts.search.wave import Candidate, End, Start, Wave, Waves, traces


@dataclass
class Revise:
    """``parallel`` chains of ``sequential`` attempts, each made with the last four before it in its prompt.

    The chains advance together, one attempt a round, so that the batch is full. ``initial`` candidates become the
    first attempts, dealt out to the chains in turn. The answer is selected inside each chain and then across
    chains: weighted by verifier scores, or by votes where there are none.
    """

    sequential: int
    parallel: int
    aggregate: Aggregate = "last"
    needs_verifier = False
    uses_scores = True
    eager = False

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        first = (yield Wave(resume=tuple(initial), score="answers")) if initial else []
        chains = self._chains(first)
        while due := [index for index, chain in enumerate(chains) if len(chain) < self.sequential]:
            starts = tuple(Start(index, attempts=_attempts(traces(chains[index]))) for index in due)
            grown = yield Wave(starts, score="answers")
            for candidate in grown:
                chains[candidate.name].append(candidate)
            if len(grown) < len(due):
                break
        return End([candidate for chain in chains for candidate in chain])

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return hierarchical([traces(chain) for chain in self._chains(candidates)], self.aggregate, timeout)

    def _chains(self, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
        chains: list[list[Candidate]] = [[] for _ in range(self.parallel)]
        for candidate in candidates:
            chains[candidate.name % self.parallel].append(candidate)
        return chains


def _attempts(chain: Sequence[Trace]) -> tuple[Trace, ...]:
    """The latest attempts that have an answer, or an error that says why not; others teach nothing."""
    told = [trace for trace in chain if trace.error or voters([trace])]
    return tuple(told[-ATTEMPTS_IN_CONTEXT:])
