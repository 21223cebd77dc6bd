"""Particle filtering over steps (Puri et al. 2025, arXiv 2502.01618).

All traces grow by a step and are scored; then as many are drawn from them, with probabilities that follow their
scores, and these grow on. A trace with a middling score survives now and then, so that a verifier that is wrong at one
step does not decide. A finished trace stays among the particles and is drawn like the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge_tts.answers.formulas import Timeout
from edge_tts.search.selection import Aggregate, Choice, aggregate, voters, weighted
from edge_tts.search.wave import Candidate, End, Start, Wave, Waves, traces

MAX_ROUNDS = 40
LEAST_SCORE = 0.001


@dataclass
class Particles:
    """``n`` particles; the answer is the one with the largest sum of scores over the particles that finished.

    A trace that was drawn several times is as many particles.
    """

    n: int
    aggregate: Aggregate = "last"
    needs_verifier = uses_scores = True
    eager = False
    _particles: list[int] = field(default_factory=list, init=False)
    """Ids of the present ones."""

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        kept = [candidate for candidate in initial if candidate.trace.finished]
        particles = yield Wave(Wave.samples(self.n), steps=1, score="grown")
        for round in range(MAX_ROUNDS):
            alive = [p for p in particles if p.trace.scores and (p.trace.finished or p.can_grow)]
            if not alive or all(particle.trace.finished for particle in alive):
                break
            drawn = resample(alive, [aggregate(p.trace.scores, self.aggregate) for p in alive], len(particles), round)
            finished = [particle for particle in drawn if particle.trace.finished]
            growing = [particle for particle in drawn if not particle.trace.finished]
            if not growing:
                self._particles = [particle.id for particle in (*kept, *finished)]
                break
            starts = tuple(Start(name, particle) for name, particle in enumerate(growing))
            grown = yield Wave(starts, steps=1, generations=0, score="grown")
            if not grown:
                break
            particles = [*finished, *grown]
            self._particles = [particle.id for particle in (*kept, *particles)]
        ended = {particle.id: particle for particle in particles if particle.trace.finished}
        return End([*kept, *ended.values()])

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        present = [candidates[id] for id in self._particles]
        pool = present if voters(traces(present)) else candidates
        choice = weighted(traces(pool), self.aggregate, timeout)
        return replace(choice, among=tuple(candidate.id for candidate in pool))


def resample(particles: Sequence[Candidate], scores: Sequence[float], count: int, round: int) -> list[Candidate]:
    """``count`` of ``particles``, each as often as its share of ``scores`` says: systematic resampling.

    Deterministic: the one random number comes from the particles' texts and the round.
    """
    text = repr([particle.trace.steps for particle in particles]) + str(round)
    offset = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
    weights = [max(LEAST_SCORE, score) for score in scores]
    total = math.fsum(weights)
    drawn, reached, index = [], weights[0] / total, 0
    for i in range(count):
        at = (i + offset) / count
        while at > reached and index < len(weights) - 1:
            index += 1
            reached += weights[index] / total
        drawn.append(particles[index])
    return drawn
