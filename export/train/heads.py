"""Logistic heads on soft labels, and what their scores are worth on problems that they were not fitted on."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.errors import InputError
from edge_tts.export.trace_rows import Row
from edge_tts.export.vote_metrics import Drawn, worth

FOLDS = 5

Floats = NDArray[np.float64]


def fold_of(problem: str) -> int:
    """The fold in which ``problem`` is held out; the same for all policies and runs."""
    return int(hashlib.sha256(problem.encode()).hexdigest(), 16) % FOLDS


def require_folds(rows: Sequence[Row], source: object) -> None:
    """Raise InputError where the problems of ``rows`` do not fill every fold."""
    if len({fold_of(row.id) for row in rows}) < FOLDS:
        count = len({row.id for row in rows})
        raise InputError(f"{source} has {count} problems, too few for {FOLDS} folds; sample more")


@dataclass(frozen=True)
class Targets:
    """What a head is fitted to, one entry for each step."""

    labels: Floats
    """In [0, 1]."""
    weights: Floats
    folds: NDArray[np.int64]
    """The fold that each step's problem is held out in."""

    @classmethod
    def of(cls, labels: Sequence[float], weights: Sequence[float], owners: Sequence[Row]) -> Targets:
        """``owners``: whose step it is. Weights are scaled so that every problem of a policy weighs the same."""
        _, owner = np.unique([f"{row.policy} {row.id}" for row in owners], return_inverse=True)
        fair = np.array(weights, np.float64)
        fair *= len(owner) / (owner.max() + 1) / np.bincount(owner, fair)[owner]
        return cls(np.array(labels, np.float64), fair, np.array([fold_of(row.id) for row in owners]))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Targets:
        return Targets(self.labels[chosen], self.weights[chosen], self.folds[chosen])


def logistic(x: NDArray[Any], targets: Targets, ridge: float) -> tuple[Floats, float]:
    """Weights (features) and bias of a logistic regression with a ridge on standardised features; ``x`` is (steps,
    features)."""
    from scipy.optimize import minimize

    labels, weights = targets.labels, targets.weights
    mean = np.average(x, axis=0, weights=weights)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights)) + 1e-6
    z = ((x - mean) / spread).astype(np.float64)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        w, bias = parameters[:-1], parameters[-1]
        logits = z @ w + bias
        wrong = weights * (1 / (1 + np.exp(-logits)) - labels)
        value = float(weights @ (np.logaddexp(0, logits) - labels * logits) + ridge / 2 * w @ w)
        return value, np.append(z.T @ wrong + ridge * w, wrong.sum())

    found = minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    raw = found[:-1] / spread
    return raw, float(found[-1] - raw @ mean)


def held_out(x: NDArray[Any], targets: Targets, ridge: float) -> Floats:
    """The logit of every step by a head that was fitted without its problem."""
    found = np.zeros(len(x))
    for fold in sorted(set(targets.folds.tolist())):
        out = targets.folds == fold
        weight, bias = logistic(x[~out], targets[~out], ridge)
        found[out] = x[out] @ weight + bias
    return found


def calibrated(logits: Floats, targets: Targets) -> Floats:
    """Probabilities (Platt 1999) of held-out ``logits``: each fold is calibrated on the others."""
    return 1 / (1 + np.exp(-held_out(logits[:, None], targets, ridge=1e-3)))


def worth_by_policy(finals: Sequence[tuple[Row, float]]) -> dict[str, Any]:
    """:func:`edge_tts.export.vote_metrics.worth` of final scores, by the policy that wrote the traces."""
    questions: dict[str, dict[str, list[Drawn]]] = defaultdict(lambda: defaultdict(list))
    for row, score in finals:
        drawn = Drawn(row.answer, bool(row.correct), score, row.logprob or 0.0)
        questions[row.policy or ""][row.id].append(drawn)
    return {policy: worth(list(groups.values())) for policy, groups in questions.items()}


def likelihood(rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the mean log-probability of a token is worth, which costs nothing; None where it is not known."""
    known = [(row, row.logprob) for row in rows if row.logprob is not None]
    if len(known) < len(rows):
        return None
    targets = Targets.of([float(bool(row.correct)) for row in rows], [1.0] * len(rows), rows)
    scores = calibrated(np.array([value for _, value in known]), targets)
    return worth_by_policy([(row, float(score)) for row, score in zip(rows, scores, strict=True)])
