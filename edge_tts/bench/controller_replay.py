"""The controller over samples that were drawn before: what it would have done, and what that would have cost.

The pools of a study hold many samples of each problem. Drawn in random orders, they show what the controller would have
seen after any number of samples, and whether its leading answer was right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from edge_tts.answers.equivalence import group
from edge_tts.bench.pool import Pool, Sample, read_pools
from edge_tts.bench.records import SAMPLES, read_config, stored
from edge_tts.core import Trace
from edge_tts.errors import InputError
from edge_tts.events import Decided
from edge_tts.runtimes.common_prefix import common_prefix
from edge_tts.search.confidence import Calibration, Standing
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.selection import majority, weighted
from edge_tts.search.wave import Candidate, Wave, traces

ORDERS = 6
"""Random orders in which each problem's samples are looked at."""


@dataclass(frozen=True)
class Seen:
    """What a vote of some samples gives."""

    answer: str | None
    standing: Standing
    tokens: float
    """Evaluated for them, by the policy or for as much compute by the verifier."""


@dataclass(frozen=True)
class Problem:
    """The samples of one problem, as candidates of a search; a candidate's id is its place in the pools."""

    id: str
    usual: tuple[Candidate, ...]
    other: tuple[Candidate, ...]
    right: frozenset[str]
    """Votes of right answers."""
    prompts: tuple[int, int]
    """Tokens evaluated for the prompt of each way."""
    alike: tuple[tuple[int, ...], ...]
    """By the ids of two candidates: how many tokens they begin with alike, which are evaluated once."""
    scoring: tuple[float, ...] = ()
    """By the id of a candidate: what scoring it costs, in tokens of the policy; empty: nothing."""
    ends: tuple[tuple[tuple[int, float], ...], ...] = ()
    """By the id of a candidate: how many tokens it has after each of its steps, and the sum of their log-probabilities;
    empty where that is not known."""
    seen: dict[tuple[bool, tuple[int, ...]], Seen] = field(default_factory=dict, compare=False, repr=False)
    """What is known of samples that were looked at, by whether they weigh their scores, and their ids in order."""


def read(usual: Path, other: Path | None = None) -> list[Problem]:
    """The problems of a study in the usual format, and of one in another format. Raises InputError."""
    pools, others = _pools(usual), _pools(other) if other else {}
    if other and not pools.keys() <= others.keys():
        missing = sorted(pools.keys() - others.keys())
        raise InputError(f"{other} lacks {len(missing)} problems of {usual}, such as {missing[0]}; resume that study")
    share = _verifier_share(usual) if any(s.verifier_tokens for pool in pools.values() for s in pool.samples) else 0.0
    return [problem_of(pool, others.get(id), share) for id, pool in pools.items()]


def _verifier_share(study: Path) -> float:
    """What a token of the verifier costs in tokens of the policy: FLOPs are 2 x parameters x tokens for both."""
    config = read_config(study)
    policy, verifier = config.get("policy_parameters"), config.get("verifier_parameters")
    if not (isinstance(policy, int) and isinstance(verifier, int) and policy > 0):
        raise InputError(f"{study}/study.json does not say how many parameters its models have; draw the study again")
    return verifier / policy


def _pools(folder: Path) -> dict[str, Pool]:
    found = {pool.id: pool for pool in read_pools(stored(folder / SAMPLES), lambda _, seed: seed == 0)}
    if not found:
        raise InputError(f"{folder} has no pools of samples; run `bench run` with majority among the strategies")
    return found


def problem_of(pool: Pool, other: Pool | None = None, verifier_share: float = 0.0) -> Problem:
    """The problem of ``pool``, and of its samples in another format where there are some.

    A token of the verifier costs ``verifier_share`` of one of the policy.
    """
    samples = [(sample, 0) for sample in pool.samples] + [(sample, 1) for sample in (other.samples if other else ())]
    ids = group([sample.answer or "" for sample, _ in samples])
    candidates = [
        _candidate(number, sample, way, str(id))
        for number, ((sample, way), id) in enumerate(zip(samples, ids, strict=True))
    ]
    return Problem(
        pool.id,
        tuple(c for c in candidates if c.way == 0),
        tuple(c for c in candidates if c.way == 1),
        frozenset(str(id) for (sample, _), id in zip(samples, ids, strict=True) if sample.correct),
        (pool.prompt_cost, other.prompt_cost if other else 0),
        tuple(tuple(_common(a, b) for b in candidates) for a in candidates),
        tuple(verifier_share * sample.verifier_tokens for sample, _ in samples),
        tuple(_ends(sample) for sample, _ in samples),
    )


def _ends(sample: Sample) -> tuple[tuple[int, float], ...]:
    ends: list[tuple[int, float]] = []
    reached, logprob = 0, 0.0
    for part in sample.parts:
        reached, logprob = reached + part.tokens, logprob + part.logprob
        if part.text.strip():
            ends.append((reached, logprob))
    return tuple(ends) if len(ends) == len(sample.steps) == len(sample.scores) else ()


def _candidate(number: int, sample: Sample, way: int, vote: str) -> Candidate:
    logprob = sum(part.logprob for part in sample.parts)
    answer = None if sample.answer is None else vote
    trace = Trace(sample.tokens, sample.steps, True, answer, sample.scores, logprob, vote=vote)
    return Candidate(number, number, trace, 0, 0, way)


def _common(a: Candidate, b: Candidate) -> int:
    if a.way != b.way:
        return 0
    return common_prefix(a.trace.tokens, b.trace.tokens)


def weighed(problem: Problem, other_weight: float) -> Problem:
    """The problem with votes in the other format that count ``other_weight``."""
    if not problem.other:
        return problem  # and what is known of its samples
    other = tuple(replace(c, trace=replace(c.trace, weight=other_weight)) for c in problem.other)
    return replace(problem, other=other, seen={})


def lost(problem: Problem, candidate: Candidate, pacing: Pacing) -> bool:
    """Whether a search with ``pacing`` gives the candidate up on its way."""
    ends, scores = problem.ends[candidate.id] if problem.ends else (), candidate.trace.scores
    return 0 < pacing.look_after < len(ends) and scores[pacing.look_after - 1] < pacing.give_up


def without_lost(problem: Problem, pacing: Pacing) -> Problem:
    """The problem with the samples that ``pacing`` gives up cut there: they have no answer, and cost less."""
    if not any(lost(problem, candidate, pacing) for candidate in problem.usual):
        return problem  # and what is known of its samples
    usual, scoring, kept = [], list(problem.scoring), pacing.look_after
    for candidate in problem.usual:
        if lost(problem, candidate, pacing):
            trace, (length, logprob) = candidate.trace, problem.ends[candidate.id][kept - 1]
            if scoring:
                scoring[candidate.id] *= length / len(trace.tokens)
            cut = replace(trace, tokens=trace.tokens[:length], steps=trace.steps[:kept], scores=trace.scores[:kept])
            candidate = replace(candidate, trace=replace(cut, answer=None, logprob=logprob))
        usual.append(candidate)
    return replace(problem, usual=tuple(usual), scoring=tuple(scoring), seen={})


def orders(problem: Problem, seed: int = 0) -> Iterator[Problem]:
    """The problem with its samples in ``ORDERS`` random orders."""
    draw = np.random.default_rng([seed, *problem.id.encode()])
    for _ in range(ORDERS):
        usual, other = (
            tuple(samples[i] for i in draw.permutation(len(samples))) for samples in (problem.usual, problem.other)
        )
        yield replace(problem, usual=usual, other=other)


def look(problem: Problem, drawn: Sequence[Candidate], scores: bool = False) -> Seen:
    """What a vote of the samples ``drawn`` gives, weighed by their ``scores`` or plain; computed once."""
    key = scores, tuple(candidate.id for candidate in drawn)
    if key not in problem.seen:
        best = (weighted(traces(drawn), "last") if scores else majority(traces(drawn))).best
        answer = best.answer if best else None
        scoring = sum(problem.scoring[candidate.id] for candidate in drawn) if scores and problem.scoring else 0
        problem.seen[key] = Seen(answer, Standing.of(drawn, answer), evaluated(problem, drawn) + scoring)
    return problem.seen[key]


def are_scored(problems: Sequence[Problem]) -> bool:
    """Whether a verifier scored every answer in the usual format among the samples of ``problems``."""
    samples = (c.trace for problem in problems for c in problem.usual)
    return all(trace.scores for trace in samples if trace.answer is not None)


@dataclass
class _Replayed(Controller):
    """A controller whose samples are those of a problem."""

    problem: Problem | None = None

    def standing(self, pool: Sequence[Candidate]) -> Standing:
        assert self.problem is not None
        return look(self.problem, pool, self.scores).standing


@dataclass(frozen=True)
class Ran:
    """What the controller did with one problem in one order."""

    id: str
    right: bool
    answered: bool
    confidence: float
    first: float
    """The confidence after the first wave."""
    samples: int
    others: int
    tokens: float
    """Evaluated by the policy: prompts and new text; what samples begin with alike counts once. Scoring them adds the
    tokens that cost as much."""


def drawn(problem: Problem, controller: Controller) -> list[Candidate]:
    """What ``controller`` draws of the samples, in the order they have."""
    return _carried_out(problem, controller)[0]


def run(problem: Problem, controller: Controller) -> Ran:
    """The real controller over samples in the order they have."""
    pool, sure = _carried_out(problem, controller)
    found = look(problem, pool, controller.scores)
    others = sum(candidate.way for candidate in pool)
    first, last = (sure[0], sure[-1]) if sure else (0.0, 0.0)
    known = (problem.id, found.answer in problem.right, found.answer is not None, last, first)
    return Ran(*known, len(pool) - others, others, found.tokens)


def _carried_out(problem: Problem, controller: Controller) -> tuple[list[Candidate], list[float]]:
    """The samples that were drawn, and the confidence after each wave."""
    waves = _Replayed(**{f.name: getattr(controller, f.name) for f in fields(controller)}, problem=problem).waves([])
    pool: list[Candidate] = []
    taken = [0, 0]
    sure: list[float] = []
    try:
        proposed = next(waves)
        while True:
            if isinstance(proposed, Decided):
                sure.append(proposed.confidence)
                proposed = next(waves)
            elif isinstance(proposed, Wave):
                for start in proposed.starts:
                    samples = problem.other if start.way else problem.usual
                    if taken[start.way] < len(samples):
                        pool.append(samples[taken[start.way]])
                        taken[start.way] += 1
                proposed = waves.send(list(pool))
    except StopIteration:
        pass
    return pool, sure


def evaluated(problem: Problem, drawn: Sequence[Candidate]) -> int:
    """Tokens that the policy evaluates for the samples ``drawn``, the prompts of their ways included.

    A token that samples have in common up to there is evaluated once, and the last of a sample never again.
    """
    total = sum(problem.prompts[way] for way in {candidate.way for candidate in drawn})
    for number, candidate in enumerate(drawn):
        before = drawn[:number]
        alike = max((min(problem.alike[candidate.id][o.id], len(o.trace.tokens)) for o in before), default=0)
        tokens = len(candidate.trace.tokens)
        total += tokens - min(alike, max(0, tokens - 1))
    return total


def run_all(problems: Sequence[Problem], controller: Controller) -> list[Ran]:
    """``controller`` on every problem in all orders."""
    return [run(drawn, controller) for problem in problems for drawn in orders(problem, seed=1)]


def mixed(problems: Sequence[Problem], usual: int, other: int = 0, scores: bool = False) -> list[Ran]:
    """A vote of so many samples in the usual and the other format, in the same orders; plain, or weighed by scores."""
    return [_mixed(drawn, usual, other, scores) for problem in problems for drawn in orders(problem, seed=1)]


def _mixed(problem: Problem, usual: int, other: int, scores: bool) -> Ran:
    found = look(problem, (*problem.usual[:usual], *problem.other[:other]), scores)
    known = (problem.id, found.answer in problem.right, found.answer is not None, 0.0, 0.0)
    return Ran(*known, usual, other, found.tokens)


def always(samples: int) -> Controller:
    """A plain vote of ``samples``, as a controller that never stops before."""
    return Controller(samples, Calibration({"bias": -9.0}, {"bias": 9.0}), Pacing(samples, samples))
