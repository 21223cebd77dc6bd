"""The strategy table of a pack, fitted on a study of held-out problems, with the evidence behind each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.intervals import mean_interval
from edge_tts.bench.loading import PROBE, Array, Cell, Loaded
from edge_tts.bench.optimal import PRIOR, bins, candidates, edges, halves, with_probe
from edge_tts.errors import InputError
from edge_tts.search.allocation import BINS
from edge_tts.search.strategy import Strategy

FIXED = ("majority", "adaptive", "best-of-n", "weighted")
"""What the table's choices are compared with."""


def fit(study: Loaded) -> dict[str, Any]:
    """The table as ``table.json`` has it: five bins of predicted difficulty, one column for each budget.

    A cell names the most accurate strategy in its bin within the budget, and the cheapest among equals. Accuracies are
    pulled towards those over all bins. No strategy draws fewer samples than the estimate has already paid for, and a
    budget that the estimate takes whole leaves nothing to choose. Raises InputError where the study has no difficulty
    estimate, or no larger budget.
    """
    if study.predicted is None:
        raise InputError(
            f"the study {study.name} has no difficulty estimate: run it with `weighted` (`majority` where the pack has "
            f"no verifier) among the strategies and {PROBE} among the budgets"
        )
    budgets = sorted({budget for _, budget in candidates(study) if budget > PROBE})
    if not budgets:
        raise InputError(
            f"the study {study.name} has no budget above {PROBE}, which the estimate takes; draw more samples"
        )
    everyone = np.ones(len(study.problems), bool)
    where = bins(study.predicted)
    columns = [_column(study, where, everyone, budget) for budget in budgets]
    return {
        "format": 1,
        "probe": PROBE,
        "edges": [round(float(edge), 5) for edge in edges(study.predicted)],
        "budgets": budgets,
        "cells": [[_text(c[bin], b) for c, b in zip(columns, budgets, strict=True)] for bin in range(BINS)],
        "evidence": {
            "data": study.config.get("data"),
            "made_on": study.config.get("made_on"),
            "seeds": study.seeds,
            "problem_ids": list(study.problems),
            "bins": _bins(study, where, budgets),
            "oracle_bins": None if study.oracle is None else _bins(study, bins(study.oracle), budgets),
            "cross_validated": [_cross_validated(study, budget) for budget in budgets],
        },
    }


def _text(cell: Cell, budget: int) -> str:
    """The cell in the words of :meth:`Strategy.parse`; one that takes the whole budget leaves n to it."""
    strategy, own = cell
    return strategy if _taken(cell) == budget else str(Strategy.parse(strategy, own))


def _taken(cell: Cell) -> int:
    """What a cell takes of a budget in generations; a search that starts anew has the estimate's samples beside it."""
    strategy, own = cell
    return own + PROBE if Strategy.parse(strategy, max(own, 1)).starts_anew else own


def _column(study: Loaded, where: NDArray[np.int64], chosen_on: NDArray[np.bool_], budget: int) -> list[Cell]:
    """The cell of each bin at ``budget``, chosen on some of the problems."""
    cells = [cell for cell in candidates(study) if PROBE <= _taken(cell) <= budget]
    correct = np.stack([study.cells[cell].correct for cell in cells], axis=1)
    flops = np.array([with_probe(study, cell, "flops")[chosen_on].mean() for cell in cells])
    overall = correct[chosen_on].mean(axis=0)
    return [cells[_best(correct[chosen_on & (where == bin)], overall, flops)] for bin in range(BINS)]


def _best(correct: Array, overall: Array, flops: Array) -> int:
    """Index of the most accurate cell, the cheapest among equals; accuracies are pulled towards ``overall``."""
    accuracy = (correct.sum(axis=0) + PRIOR * overall) / (len(correct) + PRIOR)
    equal = np.flatnonzero(np.isclose(accuracy, accuracy.max()))
    return int(equal[np.argmin(flops[equal])])


def _bins(study: Loaded, where: NDArray[np.int64], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """For each bin, how many problems every candidate answered rightly (mean over seeds)."""
    found = []
    for bin in range(BINS):
        inside = where == bin
        right: dict[str, dict[str, float]] = {}
        for strategy, budget in candidates(study):
            if budget <= max(budgets):
                solved = round(float(study.cells[strategy, budget].correct[inside].sum()), 2)
                right.setdefault(str(budget), {})[strategy] = solved
        found.append({"problems": int(inside.sum()), "right": right})
    return found


def _cross_validated(study: Loaded, budget: int) -> dict[str, Any]:
    """Accuracy and cost of choosing per bin on one half of the problems and scoring on the other, beside fixed ones."""
    first = halves(len(study.problems))
    result: dict[str, Any] = {"budget": budget}
    difficulties: Mapping[str, Array | None] = {"predicted": study.predicted, "oracle": study.oracle}
    for name, scores in difficulties.items():
        if scores is None:
            continue
        where = bins(scores)
        correct, flops = np.zeros(len(where)), np.zeros(len(where))
        for chosen_on, scored_on in ((first, ~first), (~first, first)):
            for bin, cell in enumerate(_column(study, where, chosen_on, budget)):
                inside = scored_on & (where == bin)
                correct[inside] = study.cells[cell].correct[inside]
                flops[inside] = with_probe(study, cell, "flops")[inside]
        result[name] = {"accuracy": asdict(mean_interval(correct)), "flops": round(float(flops.mean()))}
    for strategy in FIXED:
        solves = study.cells.get((strategy, budget))
        if solves is not None:
            result[strategy] = {
                "accuracy": asdict(mean_interval(solves.correct)),
                "flops": round(float(solves.costs["flops"].mean())),
            }
    return result
