"""What handing unsure questions over to a larger model brings, from samples of both models of the same problems.

Each model's controller runs over its own samples. Below a threshold of the small model's confidence the larger one is
asked too, and its answer is taken where it is at least as sure, or where one of the two has no fit, as
:mod:`edge_tts.escalation.solver` does. Not imitated is what that also tells the larger model: the answers that the
small one found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.controller_replay import ORDERS, Problem, Ran, run_all
from edge_tts.bench.intervals import mean_interval
from edge_tts.errors import InputError
from edge_tts.search.controller import Controller

STEPS = 20
"""Thresholds between 0 (nothing is handed over) and 1, where all is."""
USUAL = 0.5
"""The threshold of ``--below`` where the caller names none."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    problems: Sequence[Problem]
    controller: Controller
    parameters: int
    """Weights, for FLOPs = 2 x parameters x tokens."""

    def run(self, ids: Sequence[str]) -> list[Ran]:
        """What its controller does with the problems ``ids``, each in all orders."""
        by_id = {problem.id: problem for problem in self.problems}
        return run_all([by_id[id] for id in ids], self.controller)


def escalate(small: Side, large: Side) -> dict[str, Any]:
    """The curve of accuracy and cost against the share handed over, as JSON. Raises InputError without common problems.

    Order k of a problem's samples at the one model goes with order k at the other.
    """
    known = {problem.id for problem in large.problems}
    ids = [problem.id for problem in small.problems if problem.id in known]
    if not ids:
        raise InputError("the two studies have no problem in common; draw both from the same --data")
    pair = _Pair(small, large, ids)
    points = [pair.point(step / STEPS) for step in range(STEPS)] + [pair.point(np.inf)]
    alone = pair.alone()
    equal = next((p for p in points if p["accuracy"]["value"] >= alone["accuracy"]["value"]), None)
    return {
        "problems": len(ids),
        "orders": ORDERS,
        "larger_alone": alone,
        "curve": points,
        "usual": pair.point(USUAL),
        "equals_the_larger": equal,
        "problem_ids": ids,
    }


class _Pair:
    """Both models' runs as arrays, a row for each problem and a column for each order."""

    def __init__(self, small: Side, large: Side, ids: Sequence[str]) -> None:
        self._small, self._large = small.run(ids), large.run(ids)
        self._flops = (2.0 * small.parameters, 2.0 * large.parameters)
        self._shape = (len(ids), ORDERS)
        self._right = self._array(self._small, "right"), self._array(self._large, "right")
        self._sure = self._array(self._small, "confidence"), self._array(self._large, "confidence")
        self._tokens = self._array(self._small, "tokens"), self._array(self._large, "tokens")
        self._answered = self._array(self._large, "answered") > 0
        self._comparable = all(side.controller.calibration.right for side in (small, large))

    def _array(self, ran: Sequence[Ran], name: str) -> Array:
        return np.array([float(getattr(r, name)) for r in ran]).reshape(self._shape)

    def alone(self) -> dict[str, Any]:
        """The larger model without the small one."""
        tokens = float(self._tokens[1].mean())
        return {
            "accuracy": asdict(mean_interval(self._right[1].mean(axis=1))),
            "tokens": round(tokens, 1),
            "flops": round(tokens * self._flops[1]),
        }

    def point(self, below: float) -> dict[str, Any]:
        """What a threshold brings; infinite hands everything over."""
        handed = self._sure[0] < below
        taken = handed & self._answered
        if self._comparable:
            taken &= self._sure[1] >= self._sure[0]
        right = np.where(taken, self._right[1], self._right[0])
        small = float(self._tokens[0].mean())
        large = float((self._tokens[1] * handed).mean())
        flops = small * self._flops[0] + large * self._flops[1]
        share = float(handed.mean())
        mean_small, mean_large = float(self._right[0].mean()), float(self._right[1].mean())
        return {
            "below": None if below == np.inf else round(below, 3),
            "share": round(share, 4),
            "accuracy": asdict(mean_interval(right.mean(axis=1))),
            "gain_over_the_larger": asdict(mean_interval((right - self._right[1]).mean(axis=1))),
            "same_share_at_random": round(mean_small + share * (mean_large - mean_small), 4),
            "tokens": {"small": round(small, 1), "large": round(large, 1)},
            "flops": round(flops),
            "times_the_flops_of_the_larger": round(flops / float(self._tokens[1].mean() * self._flops[1]), 3),
        }
