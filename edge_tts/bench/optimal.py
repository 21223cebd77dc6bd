"""Compute-optimal allocation (Snell et al. 2024, section 3.2).

Each difficulty bin gets the strategy that was best on one half of the problems, and is scored on the other half. The
cost of estimating the difficulty is included. The paper fixes one budget for all bins; here bins may have different
budgets: for a price L of compute, every bin takes the cell with the largest accuracy - L x cost. Varying L gives the
curve of accuracy against mean cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.figures import Share
from edge_tts.bench.loading import COSTS, PROBE, Array, Cell, Loaded
from edge_tts.search.allocation import BINS
from edge_tts.search.call import AUTO
from edge_tts.search.strategy import Strategy

PRIOR = 100
"""Pseudo-problems that pull a cell's accuracy in a bin towards its accuracy over all bins, so that a few lucky
problems do not decide. On 150 held-out training problems, values from 3 to 30 did worse and 300 no better."""
PRICES = 48
RESAMPLES = 2000
SEED = 0


def edges(scores: Array) -> Array:
    """Four falling scores that cut ``scores`` into five bins of about equal size."""
    return np.quantile(scores, [0.8, 0.6, 0.4, 0.2])


def bins(scores: Array) -> NDArray[np.int64]:
    """The bin of each problem, 0 (easiest) to 4, as :meth:`StrategyTable.bin` has it."""
    return np.asarray((scores[:, None] < edges(scores)[None, :]).sum(axis=1), np.int64)


def halves(count: int) -> NDArray[np.bool_]:
    """A random half of the problems, always the same one."""
    mask = np.zeros(count, bool)
    mask[np.random.default_rng(SEED).permutation(count)[: count // 2]] = True
    return mask


def resample(count: int) -> Array:
    """How often each problem is drawn in each bootstrap resample, (RESAMPLES + 1, count); row 0 draws each once."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.vstack([np.ones(count), drawn]).astype(float)


def with_probe(study: Loaded, cell: Cell, cost: str) -> Array:
    """The cost of a cell on each problem, difficulty estimate included.

    A sampling cell reuses the samples of the estimate; a search starts anew. Raises ValueError where the study has no
    estimate.
    """
    if study.probe is None:
        raise ValueError("the study has no difficulty estimate")
    probe, own = study.probe[cost], study.cells[cell].costs[cost]
    strategy, budget = cell
    kind = AUTO if strategy == AUTO else Strategy.parse(strategy, max(budget, 1)).kind
    if kind == AUTO:
        return own  # its cost includes the estimate
    if kind in ("weighted", "best-of-n"):
        return np.maximum(own, probe)
    if kind in ("majority", "adaptive"):
        # Of the estimate, only the scoring is not part of what the cell does itself.
        sampling = study.cells.get(("majority", PROBE))
        scoring = probe - sampling.costs[cost] if sampling else probe
        return np.maximum(own + scoring, probe)
    return own + probe


@dataclass(frozen=True)
class Curve:
    """Accuracy against mean cost; row 0 is the data, the other rows are bootstrap resamples."""

    accuracy: Array
    """(RESAMPLES + 1, points)."""
    costs: dict[str, Array]
    """The same shape, by the names of ``COSTS``."""
    cells: tuple[tuple[Cell, ...], ...] = ()
    """For an allocation: what each bin gets at each point when all problems take part in choosing."""


def baseline(study: Loaded, strategy: str, weights: Array) -> Curve:
    """One strategy at its budgets, without a difficulty estimate."""
    cells = sorted((cell for cell in study.cells if cell[0] == strategy), key=lambda cell: cell[1])
    total = weights.sum(axis=1, keepdims=True)
    accuracy = weights @ np.stack([study.cells[c].correct for c in cells], axis=1) / total
    costs = {name: weights @ np.stack([study.cells[c].costs[name] for c in cells], axis=1) / total for name in COSTS}
    return Curve(accuracy, costs)


def candidates(study: Loaded) -> list[Cell]:
    """The cells an allocation may choose from; "auto" is excluded because it is an allocation."""
    return sorted(cell for cell in study.cells if cell[0] != AUTO)


def allocate(study: Loaded, scores: Array, weights: Array) -> Curve:
    """The compute-optimal curve by difficulty ``scores``, two-fold cross-validated."""
    cells = candidates(study)
    where = bins(scores)
    first = halves(len(scores))
    correct = np.stack([study.cells[c].correct for c in cells], axis=1)
    costs = {name: np.stack([with_probe(study, c, name) for c in cells], axis=1) for name in COSTS}
    prices = _prices(costs["flops"])
    shape = (len(weights), len(prices))
    hits, spent = np.zeros(shape), {name: np.zeros(shape) for name in COSTS}
    for chosen_on, scored_on in ((first, ~first), (~first, first)):
        for bin in range(BINS):
            there = weights[:, scored_on & (where == bin)]
            picks = _choose(correct, costs["flops"], weights, chosen_on, where == bin, prices)
            inside = scored_on & (where == bin)
            hits += np.take_along_axis(there @ correct[inside], picks, axis=1)
            for name in COSTS:
                spent[name] += np.take_along_axis(there @ costs[name][inside], picks, axis=1)
    total = weights.sum(axis=1, keepdims=True)
    everything = np.ones(len(scores), bool)
    per_bin = [_choose(correct, costs["flops"], weights[:1], everything, where == b, prices)[0] for b in range(BINS)]
    chosen = tuple(tuple(cells[per_bin[b][i]] for b in range(BINS)) for i in range(len(prices)))
    return Curve(hits / total, {name: spent[name] / total for name in COSTS}, chosen)


def _prices(flops: Array) -> Array:
    """Prices of compute, rising, from 0 to where only the cheapest cell is bought."""
    mean = flops.mean(axis=0)
    return np.concatenate([[0.0], np.geomspace(1e-3 / mean.max(), 1.0 / mean.min(), PRICES - 1)])


def _choose(
    correct: Array,
    cost: Array,
    weights: Array,
    chosen_on: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    prices: Array,
) -> NDArray[np.int64]:
    """The cell a bin takes at each price, (resamples, prices); among equals the cheapest."""
    overall_weights, mine = weights[:, chosen_on], weights[:, chosen_on & inside]
    overall = overall_weights @ correct[chosen_on] / np.maximum(1e-9, overall_weights.sum(axis=1, keepdims=True))
    count = mine.sum(axis=1, keepdims=True)
    accuracy = (mine @ correct[chosen_on & inside] + PRIOR * overall) / (count + PRIOR)
    mean_cost = overall_weights @ cost[chosen_on] / np.maximum(1e-9, overall_weights.sum(axis=1, keepdims=True))
    spent = (mine @ cost[chosen_on & inside] + PRIOR * mean_cost) / (count + PRIOR)
    order = np.argsort(spent[0], kind="stable")
    picks = [np.argmax((accuracy - price * spent)[:, order], axis=1) for price in prices]
    return np.asarray(order[np.stack(picks, axis=1)], np.int64)


def envelope(cost: Array, accuracy: Array) -> tuple[Array, Array]:
    """The points of a curve that no cheaper or equal point beats, by rising cost."""
    order = np.lexsort((-accuracy, cost))
    best = np.maximum.accumulate(accuracy[order])
    keep = np.concatenate([[True], best[1:] > best[:-1]])
    return cost[order][keep], accuracy[order][keep]


def cost_of(accuracy: float, cost: Array, reached: Array) -> float:
    """Cost at which a curve first reaches ``accuracy``: linear between its points in log cost.

    The cheapest point's cost where that has it already, nan where none has it.
    """
    costs, levels = envelope(cost, reached)
    if accuracy <= levels[0]:
        return float(costs[0])
    if accuracy > levels[-1]:
        return float("nan")
    return float(np.exp(np.interp(accuracy, levels, np.log(costs))))


@dataclass(frozen=True)
class Factor:
    """How many times the allocation's compute a baseline needs for the same accuracy, with the 95% interval."""

    accuracy: float
    optimal_cost: float
    baseline_cost: float
    factor: float
    low: float
    high: float


def saving(optimal: Curve, other: Curve, cost: str) -> Factor:
    """How many times more ``cost`` the baseline ``other`` needs.

    Read at the baseline's accuracy at its largest budget, or at the allocation's best accuracy where that is
    lower. Each resample reads its own curves at its own accuracy.
    """
    levels = np.minimum(other.accuracy[:, -1], optimal.accuracy.max(axis=1))
    mine, theirs = (
        np.array([cost_of(*row) for row in zip(levels, curve.costs[cost], curve.accuracy, strict=True)])
        for curve in (optimal, other)
    )
    low, high = np.quantile(theirs[1:] / mine[1:], [0.025, 0.975])
    found = (mine[0], theirs[0], theirs[0] / mine[0], low, high)
    return Factor(round(float(levels[0]), 5), *(round(float(value), 3) for value in found))


def share(values: Array, weights: Array) -> Share:
    """The mean of ``values`` over problems, with its interval from the resamples of ``weights``."""
    means = weights @ values / np.maximum(1e-9, weights.sum(axis=1))
    return as_share(means)


def as_share(values: Array) -> Share:
    """A share from its value (row 0) and its bootstrap resamples (the other rows)."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Share(*(round(float(value), 5) for value in (values[0], low, high)))
