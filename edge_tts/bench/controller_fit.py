"""Fits the controller of a model on studies of training problems, and says what the fit brings.

The pools of a study hold many samples of each problem. Drawn in random orders, they show what the controller would
have seen after any number of samples, and whether its leading answer was right. Two logistic fits come from that
(:class:`edge_tts.search.confidence.Calibration`). Then the real controller runs over the same samples with every pacing
of a small grid, and the cheapest is taken whose accuracy is at most ``LOSS`` below that of the best fixed vote.

What is reported is cross-validated: fitted on one half of the problems, measured on the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.answers.equivalence import group
from edge_tts.bench.intervals import mean_interval
from edge_tts.bench.pool import Pool, Sample, read_pools
from edge_tts.bench.records import SAMPLES, stored
from edge_tts.core import Trace
from edge_tts.errors import InputError
from edge_tts.events import Decided
from edge_tts.reasoning.formats import FormatName
from edge_tts.search.confidence import Calibration, Standing
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.fit import FORMAT, Fit
from edge_tts.search.selection import majority
from edge_tts.search.wave import Candidate, Wave, traces

ORDERS = 6
"""Random orders in which each problem's samples are looked at."""
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
OTHERS = (0, 2, 4)
LOSS = 0.005
"""Accuracy that a pacing may lose against the best vote of a fixed size."""
VOTES = (1, 2, 3, 4, 6, 8, 12, 16)
RIDGE = 3.0
BINS = 10
TARGETS = (0.6, 0.7, 0.8, 0.9)
GAINS = (0.02, 0.05)
FIRST = (2, 4)
WAVES = (2,)
OTHER_WEIGHT = 1.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """The samples of one problem, as candidates of a search."""

    id: str
    usual: tuple[Candidate, ...]
    other: tuple[Candidate, ...]
    right: frozenset[str]
    """Votes of right answers."""
    prompts: tuple[int, int]
    """Tokens evaluated for the prompt of each way."""


def read(usual: Path, other: Path | None, weight: float = OTHER_WEIGHT) -> list[Problem]:
    """The problems of a study in the usual format, and of one in another format. Raises InputError."""
    pools = _pools(usual)
    others = _pools(other) if other else {}
    if other and not pools.keys() <= others.keys():
        missing = sorted(pools.keys() - others.keys())
        raise InputError(f"{other} lacks {len(missing)} problems of {usual}, such as {missing[0]}; resume that study")
    return [_problem(pool, others.get(id), weight) for id, pool in pools.items()]


def _pools(folder: Path) -> dict[str, Pool]:
    found = {pool.id: pool for pool in read_pools(stored(folder / SAMPLES), lambda _, seed: seed == 0)}
    if not found:
        raise InputError(f"{folder} has no pools of samples; run `bench run` with majority among the strategies")
    return found


def _problem(pool: Pool, other: Pool | None, weight: float) -> Problem:
    drawn = [(sample, 0) for sample in pool.samples] + [(sample, 1) for sample in (other.samples if other else ())]
    ids = group([sample.answer or "" for sample, _ in drawn])
    candidates = [
        _candidate(number, sample, way, str(id), weight if way else 1.0)
        for number, ((sample, way), id) in enumerate(zip(drawn, ids, strict=True))
    ]
    return Problem(
        pool.id,
        tuple(c for c in candidates if c.way == 0),
        tuple(c for c in candidates if c.way == 1),
        frozenset(str(id) for (sample, _), id in zip(drawn, ids, strict=True) if sample.correct),
        (pool.prompt_cost, other.prompt_cost if other else 0),
    )


def _candidate(number: int, sample: Sample, way: int, vote: str, weight: float) -> Candidate:
    logprob = sum(part.logprob for part in sample.parts)
    answer = None if sample.answer is None else vote
    trace = Trace(sample.tokens, sample.steps, True, answer, sample.scores, logprob, vote=vote, weight=weight)
    return Candidate(number, number, trace, 0, 0, way)


def orders(problem: Problem, seed: int = 0) -> Iterator[Problem]:
    """The problem with its samples in ``ORDERS`` random orders."""
    draw = np.random.default_rng([seed, *problem.id.encode()])
    for _ in range(ORDERS):
        usual, other = (
            tuple(samples[i] for i in draw.permutation(len(samples))) for samples in (problem.usual, problem.other)
        )
        yield replace(problem, usual=usual, other=other)


def vote(candidates: Sequence[Candidate]) -> str | None:
    best = majority(traces(candidates)).best
    return best.answer if best else None


def calibrate(problems: Sequence[Problem]) -> Calibration:
    """Logistic fits on what the controller would see of ``problems``; every problem weighs the same."""
    rows: list[dict[str, float]] = []
    right: list[bool] = []
    reachable: list[bool] = []
    for problem in problems:
        for drawn in orders(problem):
            final = vote(drawn.usual) in problem.right
            for size, others in itertools.product(SIZES, OTHERS if drawn.other else (0,)):
                if size > len(drawn.usual):
                    continue
                seen = [*drawn.usual[:size], *drawn.other[:others]]
                leading = vote(seen)
                standing = Standing.of(seen, leading)
                rows.append(standing.features)
                right.append(leading in problem.right)
                reachable.append(final)
    names = [name for name in rows[0] if name == "bias" or len({row[name] for row in rows}) > 1]
    features = np.array([[row[name] for name in names] for row in rows])
    return Calibration(_logistic(names, features, right), _logistic(names, features, reachable))


def _logistic(names: Sequence[str], features: Array, labels: Sequence[bool]) -> dict[str, float]:
    """Weights of a logistic regression with a ridge penalty on standardised features, by Newton's method."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    bias = names.index("bias")
    mean[bias], spread[bias] = 0.0, 1.0
    x = (features - mean) / np.where(spread > 0, spread, 1.0)
    y = np.asarray(labels, np.float64)
    penalty = np.full(len(names), RIDGE)
    penalty[bias] = 0.0
    weights = np.zeros(len(names))
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (p - y) + penalty * weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    raw = weights / np.where(spread > 0, spread, 1.0)
    raw[bias] -= float(np.sum(raw * mean)) - raw[bias] * mean[bias]
    return {name: round(float(weight), 4) for name, weight in zip(names, raw, strict=True)}


@dataclass(frozen=True)
class Ran:
    """What the controller did with one problem in one order."""

    id: str
    right: bool
    confidence: float
    samples: int
    others: int
    tokens: int
    """Evaluated by the policy: prompts and new text."""


def run(problem: Problem, controller: Controller) -> Ran:
    """The real controller over samples in the order they have."""
    waves = controller.waves([])
    pool: list[Candidate] = []
    taken, sure = [0, 0], 0.0
    try:
        proposed = next(waves)
        while True:
            if isinstance(proposed, Decided):
                sure = proposed.confidence
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
    tokens = problem.prompts[0] + (problem.prompts[1] if taken[1] else 0)
    tokens += sum(len(candidate.trace.tokens) for candidate in pool)
    return Ran(problem.id, vote(pool) in problem.right, sure, taken[0], taken[1], tokens)


def run_all(problems: Sequence[Problem], controller: Controller) -> list[Ran]:
    return [run(drawn, controller) for problem in problems for drawn in orders(problem, seed=1)]


def fixed(problems: Sequence[Problem], samples: int) -> list[Ran]:
    """A plain vote of ``samples`` in the same orders."""
    return run_all(problems, Controller(samples, Calibration({"bias": -9.0}, {"bias": 9.0}), Pacing(samples, samples)))


def choose_pacing(problems: Sequence[Problem], calibration: Calibration, most: int) -> Pacing:
    """The cheapest pacing of the grid that loses at most ``LOSS`` against the best fixed vote on ``problems``."""
    wanted = max(_mean([ran.right for ran in fixed(problems, size)]) for size in _votes(most)) - LOSS
    ways = 2 if problems[0].other else 1
    tried: list[tuple[float, float, Pacing]] = []
    for first, wave, target, gain, other in itertools.product(
        FIRST, WAVES, TARGETS, GAINS, OTHERS if ways > 1 else (0,)
    ):
        pacing = Pacing(first, wave, target, gain, other)
        ran = run_all(problems, Controller(most, calibration, pacing, ways=ways))
        tried.append((_mean([r.right for r in ran]), _mean([r.tokens for r in ran]), pacing))
    accurate = [trial for trial in tried if trial[0] >= wanted]
    best = min(accurate, key=lambda trial: trial[1]) if accurate else max(tried, key=lambda trial: trial[0])
    return best[2]


def fit(problems: Sequence[Problem], most: int, other: FormatName | None) -> tuple[Fit, dict[str, Any]]:
    """The fit on all ``problems``, and what one on either half brings on the other half."""
    halves = problems[::2], problems[1::2]
    held_out: list[Ran] = []
    for chosen_on, measured_on in (halves, halves[::-1]):
        calibration = calibrate(chosen_on)
        pacing = choose_pacing(chosen_on, calibration, most)
        held_out += run_all(measured_on, Controller(most, calibration, pacing, ways=2 if other else 1))
    calibration = calibrate(problems)
    pacing = choose_pacing(problems, calibration, most)
    whole = Fit(calibration, pacing, other if pacing.other else None)
    return whole, _account(problems, held_out, most)


def measure(problems: Sequence[Problem], fit: Fit, most: int) -> dict[str, Any]:
    """What ``fit``, made on other problems, brings on ``problems``."""
    ways = 2 if problems[0].other else 1
    return _account(problems, run_all(problems, Controller(most, fit.calibration, fit.pacing, ways=ways)), most)


def _account(problems: Sequence[Problem], ran: Sequence[Ran], most: int) -> dict[str, Any]:
    votes = {n: fixed(problems, n) for n in _votes(most)}
    return {
        "problems": len(problems),
        "orders": ORDERS,
        "controller": summary(ran),
        "against": {f"majority:n={n}": _against(ran, vote) for n, vote in votes.items()},
        "problem_ids": [problem.id for problem in problems],
    }


def _votes(most: int) -> list[int]:
    return sorted({*(size for size in VOTES if size < most), most})


def summary(ran: Sequence[Ran]) -> dict[str, Any]:
    """Accuracy, cost and calibration of what the controller did."""
    sure = [r for r in ran if r.confidence >= 0.9]
    return {
        "accuracy": asdict(mean_interval(list(_by_problem(ran, "right").values()))),
        "samples": round(_mean([r.samples for r in ran]), 2),
        "others": round(_mean([r.others for r in ran]), 2),
        "tokens": round(_mean([r.tokens for r in ran]), 1),
        "expected_calibration_error": round(calibration_error(ran), 4),
        "sure": {"share": round(len(sure) / len(ran), 4), "right": round(_mean([r.right for r in sure]), 4)},
        "reliability": _reliability(ran),
    }


def calibration_error(ran: Sequence[Ran]) -> float:
    """Expected calibration error over ten bins of confidence (Guo et al. 2017)."""
    rows = _reliability(ran)
    return sum(row["count"] * abs(row["confidence"] - row["right"]) for row in rows) / len(ran)


def _reliability(ran: Sequence[Ran]) -> list[dict[str, float]]:
    bins: dict[int, list[Ran]] = {}
    for r in ran:
        bins.setdefault(min(BINS - 1, int(r.confidence * BINS)), []).append(r)
    return [
        {
            "confidence": round(_mean([r.confidence for r in inside]), 4),
            "right": round(_mean([r.right for r in inside]), 4),
            "count": len(inside),
        }
        for _, inside in sorted(bins.items())
    ]


def _against(ran: Sequence[Ran], other: Sequence[Ran]) -> dict[str, Any]:
    """Accuracy and cost of the controller against a fixed vote, paired by problem."""
    mine, theirs = _by_problem(ran, "right"), _by_problem(other, "right")
    gain = mean_interval([mine[id] - theirs[id] for id in mine])
    return {
        "accuracy": round(_mean([r.right for r in other]), 4),
        "gain": asdict(gain),
        "times_the_tokens": round(_mean([r.tokens for r in other]) / _mean([r.tokens for r in ran]), 3),
    }


def _by_problem(ran: Sequence[Ran], name: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for r in ran:
        found.setdefault(r.id, []).append(float(getattr(r, name)))
    return {id: _mean(values) for id, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def to_json(fits: Mapping[FormatName, tuple[Fit, dict[str, Any]]], made: Mapping[str, Any]) -> dict[str, Any]:
    """The file that :func:`edge_tts.search.fit.parse` reads."""
    return {
        "format": FORMAT,
        "fits": {name: _plain(fit) for name, (fit, _) in fits.items()},
        "evidence": {**made, **{name: evidence for name, (_, evidence) in fits.items()}},
    }


def _plain(fit: Fit) -> dict[str, Any]:
    return {
        "calibration": {"right": dict(fit.calibration.right), "reachable": dict(fit.calibration.reachable)},
        "pacing": asdict(fit.pacing),
        "other": fit.other,
        "other_weight": fit.other_weight,
    }
