"""Validation metrics of a process reward model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Candidate = tuple[str | None, bool, float]
"""A trace of a question: its answer, None where it has none, whether that is right, and its final score."""


def step_metrics(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Cross-entropy of step scores against soft labels, and AUC against labels of at least 0.5.

    ``pairs`` holds (score, label); the AUC is 0.5 where all labels are on one side.
    """
    scores, labels = np.clip(np.array(pairs, np.float64).T, 1e-7, 1 - 1e-7)
    bce = -(labels * np.log(scores) + (1 - labels) * np.log(1 - scores)).mean()
    return {"bce": float(bce), "auc": auc(scores[labels >= 0.5], scores[labels < 0.5])}


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a positive score exceeds a negative one, where a tie counts half; 0.5 without either."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def f1(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found or wanted."""
    return float(2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum()))


def best_threshold(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    """The threshold with the greatest F1, where scores of at least the threshold count as found."""
    levels = np.unique(scores)
    return float(max(levels, key=lambda level: f1(scores >= level, wanted)))


def picks(group: Sequence[Candidate]) -> dict[str, float]:
    """Whether each way to choose among one question's traces gives a right answer (1 or 0).

    ``best_of_n`` takes the best score, ``weighted`` the answer with the greatest sum of scores, ``majority`` the most
    frequent answer. ``pass_at_n`` is 1 if any trace is right; ``pass_at_1`` is the share of right traces. A trace
    without an answer has no vote.
    """
    right = {answer: correct for answer, correct, _ in group if answer is not None}
    votes: Counter[str] = Counter(answer for answer, _, _ in group if answer is not None)
    weights: dict[str, float] = defaultdict(float)
    for answer, _, score in group:
        if answer is not None:
            weights[answer] += score
    return {
        "pass_at_1": sum(correct for _, correct, _ in group) / len(group),
        "best_of_n": float(max(group, key=lambda candidate: candidate[2])[1]),
        "weighted": float(bool(right) and right[max(weights, key=weights.__getitem__)]),
        "majority": float(bool(right) and right[max(votes, key=votes.__getitem__)]),
        "pass_at_n": float(any(correct for _, correct, _ in group)),
    }


def selection(traces: Sequence[tuple[str, str | None, bool, float]]) -> dict[str, float]:
    """Mean over questions of :func:`picks`; ``traces`` are (question id, answer, correct, score)."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for question, answer, correct, score in traces:
        groups[question].append((answer, correct, score))
    picked = [picks(group) for group in groups.values()]
    rates = {name: sum(p[name] for p in picked) / len(picked) for name in picked[0]}
    return {"questions": float(len(groups)), **rates}
