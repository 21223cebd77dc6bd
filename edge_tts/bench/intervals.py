"""95% bootstrap intervals over problems, of figures that stand alone.

A study's report draws its resamples itself (:func:`edge_tts.bench.optimal.resample`), since an allocation is chosen
anew in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edge_tts.bench.figures import Share

RESAMPLES = 10_000
SEED = 0


def mean_interval(values: ArrayLike) -> Share:
    """The mean of one number for each problem, with its interval."""
    return _interval([values], np.mean)


def ratio_interval(above: ArrayLike, below: ArrayLike) -> Share:
    """The sum of ``above`` over the sum of ``below``, which are paired by problem, with its interval."""
    return _interval([above, below], lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis))


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of ratios, as a record has them."""
    low, middle, high = (round(float(value), 3) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return {"median_ratio": middle, "quartiles": [low, high]}


def _interval(data: Sequence[ArrayLike], statistic: Callable[..., Any]) -> Share:
    from scipy.stats import bootstrap

    arrays = [np.asarray(values, np.float64) for values in data]
    value = float(statistic(*arrays))
    if len(arrays[0]) < 2:
        return Share(value, value, value)  # one problem says nothing about others
    found = bootstrap(
        arrays,
        statistic,
        paired=len(arrays) > 1,
        n_resamples=RESAMPLES,
        batch=500,
        method="percentile",
        rng=SEED,
    ).confidence_interval
    return Share(round(value, 5), round(float(found.low), 5), round(float(found.high), 5))
