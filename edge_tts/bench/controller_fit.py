"""Fits the controller of a model on studies of training problems, and says what the fit brings.

Two logistic fits (:class:`edge_tts.search.confidence.Calibration`) come from what the controller would have seen of the
studies' samples (:mod:`edge_tts.bench.controller_replay`). Then the real controller runs over the same samples with
every pacing of a small grid, and the cheapest is taken whose accuracy is at most ``LOSS`` below that of the best fixed
vote.

What is reported is cross-validated: fitted on one half of the problems, measured on the other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.controller_replay import (
    ORDERS,
    Problem,
    Ran,
    are_scored,
    look,
    lost,
    mixed,
    orders,
    run_all,
    weighed,
    without_lost,
)
from edge_tts.bench.intervals import mean_interval, ratio_interval
from edge_tts.errors import InputError
from edge_tts.reasoning.formats import FormatName
from edge_tts.search.allocation import BINS as DIFFICULTIES
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.fit import FORMAT, Fit

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
OTHERS = (0, 2, 4)
LEAST_PROBLEMS = 20
LOSS = 0.01
"""Accuracy that a pacing may lose against the best vote of a fixed size."""
VOTES = (1, 2, 3, 4, 6, 8, 12, 16)
RIDGE = 1.5
"""Times the rows that a problem has: they are alike, so all of them say about as much as one."""
BINS = 10
DRAWS = 2000
TARGETS = (0.6, 0.7, 0.8, 0.9)
GAINS = (0.0, 0.02, 0.05)
FIRST = (1, 2, 4)
WAVES = (2,)
LOOK_AFTER = (1, 2, 3)
LOST = 0.01
"""Right samples, in parts of all, that may be given up early."""
OTHER_WEIGHTS = (1.0, 1.5, 2.0)
BOTH = ((2, 2), (4, 2), (4, 4), (8, 4))
MIXES = ((1, 0), (4, 0), (16, 0), (0, 1), (0, 2), (0, 4), (1, 1), *BOTH)
"""Samples in the usual and the other format."""

Array = NDArray[np.float64]


def calibrate(problems: Sequence[Problem]) -> Calibration:
    """Logistic fits on what the controller would see of ``problems``; every problem weighs the same.

    Votes weigh the scores of samples where there are any. That an answer is right is fitted where there is one.
    """
    scores = are_scored(problems)
    rows: list[dict[str, float]] = []
    led: list[bool] = []
    right: list[bool] = []
    reachable: list[bool] = []
    for problem in problems:
        for drawn in orders(problem):
            final = look(drawn, drawn.usual, scores).answer in problem.right
            for size, others in itertools.product(SIZES, OTHERS if drawn.other else (0,)):
                if size > len(drawn.usual):
                    continue
                seen = [*drawn.usual[:size], *drawn.other[:others]]
                found = look(drawn, seen, scores)
                rows.append(found.standing.features)
                led.append(found.answer is not None)
                right.append(found.answer in problem.right)
                reachable.append(final)
    names = [name for name in rows[0] if name == "bias" or len({row[name] for row in rows}) > 1]
    features, leads = np.array([[row[name] for name in names] for row in rows]), np.array(led)
    ridge = RIDGE * len(rows) / len(problems)
    return Calibration(
        _logistic(names, features[leads], np.array(right)[leads], ridge),
        _logistic(names, features, np.array(reachable), ridge),
    )


def _logistic(names: Sequence[str], features: Array, labels: NDArray[np.bool_], ridge: float) -> dict[str, float]:
    """Weights of a logistic regression with a ridge penalty on standardised features, by Newton's method."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    bias = names.index("bias")
    mean[bias], spread[bias] = 0.0, 1.0
    x = (features - mean) / np.where(spread > 0, spread, 1.0)
    y = labels.astype(np.float64)
    penalty = np.full(len(names), ridge)
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


def choose_pacing(problems: Sequence[Problem], most: int) -> tuple[Calibration, Pacing]:
    """The cheapest pacing of the grid that loses at most ``LOSS`` against the best fixed vote on ``problems``.

    Gives it with the calibration on what a search with it sees.
    """
    scores, ways = are_scored(problems), 2 if problems[0].other else 1
    wanted = max(_right(problems, [votes], scores) for votes in _votes(most)) - LOSS
    tried: list[tuple[float, float, Calibration, Pacing]] = []
    for giving_up in (Pacing(), *givings_up(problems)):
        seen = [without_lost(problem, giving_up) for problem in problems]
        calibration = calibrate(seen)
        for first, wave, target, gain, other in itertools.product(
            FIRST, WAVES, TARGETS, GAINS, OTHERS if ways > 1 else (0,)
        ):
            pacing = replace(giving_up, first=first, wave=wave, target=target, least_gain=gain, other=other)
            ran = run_all(seen, Controller(most, calibration, pacing, scores=scores, ways=ways))
            tried.append((_mean([r.right for r in ran]), _mean([r.tokens for r in ran]), calibration, pacing))
    accurate = [trial for trial in tried if trial[0] >= wanted]
    best = min(accurate, key=lambda trial: trial[1]) if accurate else max(tried, key=lambda trial: trial[0])
    return best[2:]


def givings_up(problems: Sequence[Problem]) -> list[Pacing]:
    """For each number of steps, the highest score at which at most ``LOST`` of the right samples are given up.

    None where no verifier scored samples while it read their steps, or where no sample would be given up.
    """
    if not any(any(problem.scoring) for problem in problems):
        return []
    right = [
        (problem.ends[c.id], c.trace) for problem in problems for c in problem.usual if c.trace.vote in problem.right
    ]
    allowed = int(LOST * len(right))
    found = []
    for steps in LOOK_AFTER:
        known = sorted(trace.scores[steps - 1] for ends, trace in right if len(ends) > steps)
        if len(known) > allowed:
            pacing = Pacing(look_after=steps, give_up=known[allowed])
            if any(lost(problem, c, pacing) for problem in problems for c in problem.usual):
                found.append(pacing)
    return found


def fit(problems: Sequence[Problem], most: int, other: FormatName | None) -> tuple[Fit, dict[str, Any]]:
    """The fit on all ``problems``, and what one on either half brings on the other half.

    Raises InputError where there are fewer than ``LEAST_PROBLEMS``, or hardly any with a right sample.
    """
    solved = sum(any(c.trace.vote in problem.right for c in problem.usual) for problem in problems)
    if len(problems) < LEAST_PROBLEMS or solved < 4:
        raise InputError(
            f"a fit of the controller needs {LEAST_PROBLEMS} problems, 4 of them with a right sample; the study has "
            f"{len(problems)} and {solved}; add problems"
        )
    halves = problems[::2], problems[1::2]
    held_out: list[Ran] = []
    early: list[tuple[bool, bool]] = []
    for chosen_on, measured_on in (halves, halves[::-1]):
        half = _fitted(chosen_on, most, other)
        held_out += _run(measured_on, half, most)
        early += _given_up(measured_on, half.pacing)
    found = _account(problems, held_out, most)
    if any(is_lost for is_lost, _ in early):
        right = [is_lost for is_lost, is_right in early if is_right]
        found["given_up"] = {"samples": round(_mean([each for each, _ in early]), 4), "right": round(_mean(right), 4)}
    return _fitted(problems, most, other), found


def _given_up(problems: Sequence[Problem], pacing: Pacing) -> list[tuple[bool, bool]]:
    """Of every sample, whether ``pacing`` gives it up, and whether it is right."""
    return [(lost(problem, c, pacing), c.trace.vote in problem.right) for problem in problems for c in problem.usual]


def _fitted(problems: Sequence[Problem], most: int, other: FormatName | None) -> Fit:
    """The fit on all of ``problems``."""
    weights = OTHER_WEIGHTS if other else (1.0,)
    choices = {weight: [weighed(problem, weight) for problem in problems] for weight in weights}
    scores = are_scored(problems)
    weight = max(choices, key=lambda weight: _right(choices[weight], BOTH, scores)) if other else 1.0
    calibration, pacing = choose_pacing(choices[weight], most)
    return Fit(calibration, pacing, other if pacing.other else None, weight)


def _right(problems: Sequence[Problem], votes: Sequence[tuple[int, int]], scores: bool = False) -> float:
    """Share of right answers over ``votes``, each of so many samples in the usual and the other format."""
    return _mean([ran.right for usual, other in votes for ran in mixed(problems, usual, other, scores)])


def _run(problems: Sequence[Problem], fit: Fit, most: int) -> list[Ran]:
    """What a controller with ``fit`` does with ``problems``."""
    ways = 2 if problems[0].other else 1
    known = [without_lost(weighed(problem, fit.other_weight), fit.pacing) for problem in problems]
    scores = fit.calibration.weighs_scores
    return run_all(known, Controller(most, fit.calibration, fit.pacing, scores=scores, ways=ways))


def measure(problems: Sequence[Problem], fit: Fit, most: int) -> dict[str, Any]:
    """What ``fit``, made on other problems, brings on ``problems``."""
    return _account(problems, _run(problems, fit, most), most)


def _account(problems: Sequence[Problem], ran: Sequence[Ran], most: int) -> dict[str, Any]:
    votes = {f"majority:n={n}": mixed(problems, n, other) for n, other in _votes(most)}
    if are_scored(problems):
        votes |= {f"weighted:n={n}": mixed(problems, n, other, scores=True) for n, other in _votes(most)}
    found = {
        "problems": len(problems),
        "orders": ORDERS,
        "controller": summary(ran),
        "against": {name: _against(ran, vote) for name, vote in votes.items()},
        "difficulty": by_difficulty(problems, ran, votes),
    }
    if problems[0].other:
        found["mixes"] = mixes(problems)
    return {**found, "problem_ids": [problem.id for problem in problems]}


def by_difficulty(
    problems: Sequence[Problem], ran: Sequence[Ran], votes: Mapping[str, Sequence[Ran]]
) -> dict[str, Any]:
    """The paper's five bins of problems (Snell et al. 2024, section 3.2), the easiest first, about as many in each.

    Predicted difficulty is the controller's confidence after the first wave, oracle difficulty the share of a problem's
    samples that are right. For each bin: its problems, and how right and how dear the controller and the votes are.
    """
    right = {problem.id: _mean([c.trace.vote in problem.right for c in problem.usual]) for problem in problems}
    found = {}
    for name, easy in (("predicted", _by_problem(ran, "first")), ("oracle", right)):
        ordered = sorted(easy, key=lambda id: -easy[id])
        bins = [set(ids) for ids in np.array_split(np.array(ordered), DIFFICULTIES)]
        found[name] = [
            {"problems": len(inside), "controller": _within(ran, inside)}
            | {vote: _within(drawn, inside) for vote, drawn in votes.items()}
            for inside in bins
        ]
    return found


def _within(ran: Sequence[Ran], ids: Collection[str]) -> dict[str, float]:
    inside = [r for r in ran if r.id in ids]
    return {
        "accuracy": round(_mean([r.right for r in inside]), 4),
        "tokens": round(_mean([r.tokens for r in inside]), 1),
    }


def mixes(problems: Sequence[Problem]) -> dict[str, Any]:
    """Plain votes of samples in both formats: accuracy, tokens, and the gain over the other format's largest vote."""
    most = max(other for usual, other in MIXES if not usual)
    alone = _by_problem(mixed(problems, 0, most), "right")
    found = {}
    for usual, other in MIXES:
        ran = mixed(problems, usual, other)
        mine = _by_problem(ran, "right")
        found[f"{usual} usual, {other} other"] = {
            "accuracy": asdict(mean_interval(list(mine.values()))),
            "tokens": round(_mean([r.tokens for r in ran]), 1),
            f"gain_over_{most}_other": asdict(mean_interval([mine[id] - alone[id] for id in mine])),
        }
    return found


def _votes(most: int) -> list[tuple[int, int]]:
    return [(size, 0) for size in sorted({*(size for size in VOTES if size < most), most})]


def summary(ran: Sequence[Ran]) -> dict[str, Any]:
    """Accuracy, cost and calibration of what the controller did."""
    sure = [r for r in ran if r.confidence >= 0.9]
    return {
        "accuracy": asdict(mean_interval(list(_by_problem(ran, "right").values()))),
        "samples": round(_mean([r.samples for r in ran]), 2),
        "others": round(_mean([r.others for r in ran]), 2),
        "tokens": round(_mean([r.tokens for r in ran]), 1),
        "expected_calibration_error": round(calibration_error(ran), 4),
        "of_a_perfect_confidence": error_by_chance(ran),
        "sure": {"share": round(len(sure) / len(ran), 4), "right": round(_mean([r.right for r in sure]), 4)},
        "reliability": [_reliability(inside) for inside in _bins(ran)],
    }


def calibration_error(ran: Sequence[Ran]) -> float:
    """Expected calibration error over ten bins of confidence (Guo et al. 2017)."""
    return sum(
        len(inside) * abs(_mean([r.confidence for r in inside]) - _mean([r.right for r in inside]))
        for inside in _bins(ran)
    ) / len(ran)


def error_by_chance(ran: Sequence[Ran]) -> dict[str, float]:
    """The calibration error that so few problems show where every confidence is right: its mean and 95% quantile.

    The orders of a problem come out alike: it is right in those whose confidence is above one number drawn for it.
    """
    numbers = {id: number for number, id in enumerate(dict.fromkeys(r.id for r in ran))}
    owner, sure = np.array([numbers[r.id] for r in ran]), np.array([r.confidence for r in ran])
    right = np.random.default_rng(0).random((DRAWS, len(numbers)))[:, owner] < sure
    bins = np.minimum(BINS - 1, (sure * BINS).astype(int))
    gaps = sum(abs((right - sure)[:, bins == number].sum(axis=1)) for number in range(BINS)) / len(ran)
    return {"mean": round(float(np.mean(gaps)), 4), "high": round(float(np.quantile(gaps, 0.95)), 4)}


def _bins(ran: Sequence[Ran]) -> list[list[Ran]]:
    bins: dict[int, list[Ran]] = {}
    for r in ran:
        bins.setdefault(min(BINS - 1, int(r.confidence * BINS)), []).append(r)
    return [inside for _, inside in sorted(bins.items())]


def _reliability(inside: Sequence[Ran]) -> dict[str, float]:
    """One bin: how sure the controller was there, and how often right, with the interval over problems."""
    right, count = Counter(r.id for r in inside if r.right), Counter(r.id for r in inside)
    found = ratio_interval([right[id] for id in count], list(count.values()))
    return {
        "confidence": round(_mean([r.confidence for r in inside]), 4),
        "right": round(found.value, 4),
        "low": found.low,
        "high": found.high,
        "count": len(inside),
    }


def _against(ran: Sequence[Ran], other: Sequence[Ran]) -> dict[str, Any]:
    """Accuracy and cost of the controller against a fixed vote, paired by problem."""
    mine, theirs = _by_problem(ran, "right"), _by_problem(other, "right")
    gain = mean_interval([mine[id] - theirs[id] for id in mine])
    interval = mean_interval(list(theirs.values()))
    return {
        "accuracy": round(interval.value, 4),
        "interval": asdict(interval),
        "tokens": round(_mean([r.tokens for r in other]), 1),
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
