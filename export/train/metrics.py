"""Validation metrics of a process reward model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np


def step_metrics(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Cross-entropy of step scores against soft labels, and AUC against labels of at least 0.5.

    ``pairs`` holds (score, label); the AUC is 0.5 where all labels are on one side.
    """
    scores, labels = np.clip(np.array(pairs, np.float64).T, 1e-7, 1 - 1e-7)
    bce = -(labels * np.log(scores) + (1 - labels) * np.log(1 - scores)).mean()
    return {"bce": float(bce), "auc": auc(scores[labels >= 0.5], scores[labels < 0.5])}


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive score exceeds a negative one, ties counting half."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def selection(traces: Sequence[tuple[str, str, bool, float]]) -> dict[str, float]:
    """Accuracy over questions of four ways to pick from their traces (question id, answer, correct, final score).

    ``best_of_n`` takes the best score, ``weighted`` the answer with the greatest sum of scores,
    ``majority`` the most frequent answer, ``pass_at_n`` any right one; ``pass_at_1`` is their mean.
    """
    groups: dict[str, list[tuple[str, bool, float]]] = defaultdict(list)
    for question, answer, correct, score in traces:
        groups[question].append((answer, correct, score))
    picks: Counter[str] = Counter()
    for group in groups.values():
        right = {answer: correct for answer, correct, _ in group}
        votes, weights = Counter[str](), Counter[str]()
        for answer, _, score in group:
            votes[answer] += 1
            weights[answer] += score  # type: ignore[assignment]
        picks["best_of_n"] += max(group, key=lambda trace: trace[2])[1]
        picks["weighted"] += right[max(weights, key=weights.__getitem__)]
        picks["majority"] += right[max(votes, key=votes.__getitem__)]
        picks["pass_at_n"] += any(correct for _, correct, _ in group)
    rates = {name: count / len(groups) for name, count in picks.items()}
    pass_at_1 = sum(sum(c for _, c, _ in group) / len(group) for group in groups.values()) / len(groups)
    return {"questions": float(len(groups)), "pass_at_1": pass_at_1, **rates}
