"""The FLOPs-matched comparison with a larger model (Snell et al. 2024, section 7).

A model of N parameters costs 6 N D_pre FLOPs in pre-training on D_pre tokens, and 2 N D_inf in use for D_inf tokens.
For the total of a model M times larger, the small model may spend M + 3 (M - 1) / R times its own inference, where
R = D_inf / D_pre.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edge_tts.bench import published
from edge_tts.bench.figures import Matched, Share
from edge_tts.bench.loading import Loaded
from edge_tts.bench.optimal import Curve, as_share

RATIOS = (0.16, 0.79, 22.0)
"""The paper's values of R: far fewer, about as many, and far more tokens in use than in pre-training."""


def allowance(times: float, ratio: float) -> float:
    """How many times its own inference a small model may spend: M + 3 (M - 1) / R, M = ``times``, R = ``ratio``."""
    return times + 3 / ratio * (times - 1)


def matched(name: str, study: Loaded, curve: Curve, studies: Mapping[str, Loaded]) -> Iterator[Matched]:
    """Compare the study's compute-optimal ``curve`` with every larger model, measured ones first, then cited ones."""
    own, once = study.config.get("policy_parameters"), study.greedy_flops
    if not own or not once:
        return
    for larger, parameters, accuracy, source in _larger(study, studies):
        times = parameters / own
        if times <= 1:
            continue
        for ratio in RATIOS:
            allowed = allowance(times, ratio)
            reached, spent = _within(curve, allowed * once)
            yield Matched(
                name,
                ratio,
                larger,
                round(times, 2),
                round(accuracy, 5),
                source,
                round(allowed, 1),
                "compute-optimal (predicted)",
                reached,
                round(spent / once, 2),
            )


def _larger(study: Loaded, studies: Mapping[str, Loaded]) -> Iterator[tuple[str, float, float, str]]:
    """Name, parameters, accuracy of one greedy answer, and source of each larger model on the study's problems."""
    for name, other in studies.items():
        parameters, solves = other.config.get("parameters"), other.cells.get(("greedy", 1))
        same = other.config.get("data", {}).get("sha256") == study.config.get("data", {}).get("sha256")
        if parameters and solves and same:
            yield str(other.config.get("model")), float(parameters), float(solves.correct.mean()), f"measured: {name}"
    for figure in published.for_data(study.name):
        yield figure.model, figure.parameters, figure.accuracy, figure.source


def _within(curve: Curve, allowed: float) -> tuple[Share, float]:
    """Accuracy and FLOPs of the best point of ``curve`` within ``allowed`` FLOPs; of the cheapest where none is."""
    flops = curve.costs["flops"][0]
    inside = np.flatnonzero(flops <= allowed)
    if not len(inside):
        inside = np.array([np.argmin(flops)])
    best = inside[np.argmax(curve.accuracy[0, inside])]
    return as_share(curve.accuracy[:, best]), float(flops[best])
