"""A study as arrays: one number for each problem, for every strategy at every budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.records import RECORDS, Record, read_config, read_records
from edge_tts.errors import InputError

Array = NDArray[np.float64]
Cell = tuple[str, int]
"""A strategy and its budget."""
COSTS = ("policy_tokens", "verifier_tokens", "flops", "seconds")
PROBE = 4
"""Samples that estimate a problem's difficulty."""


@dataclass(frozen=True)
class Solves:
    """What one cell did; every array has a number for each problem, means over seeds."""

    correct: Array
    """Share of seeds answered rightly."""
    costs: Mapping[str, Array]
    """By the names of ``COSTS``."""


@dataclass(frozen=True)
class Loaded:
    """A study's complete problems, in one order for all arrays."""

    name: str
    config: Mapping[str, Any]
    problems: tuple[str, ...]
    seeds: int
    left_out: int
    """Problems that miss a record."""
    cells: Mapping[Cell, Solves]
    oracle: Array | None
    """Share of right samples of the largest pool; None where nothing was sampled."""
    predicted: Array | None
    """Mean verifier score of the first samples, or the share that agrees where there is no verifier; None without
    a pool of at least ``PROBE`` samples."""
    probe: Mapping[str, Array] | None
    """What ``predicted`` cost, by the names of ``COSTS``; None where it is."""
    pool: tuple[int, Array] | None
    """Size of the largest pool, and how many of it are right (mean over seeds)."""

    @property
    def has_verifier(self) -> bool:
        return bool(self.config.get("verifier_parameters"))

    @property
    def greedy_flops(self) -> float | None:
        """Mean FLOPs of one answer at temperature 0; None where none was asked for."""
        solves = self.cells.get(("greedy", 1))
        return float(solves.costs["flops"].mean()) if solves else None


def load_study(folder: Path) -> Loaded:
    """Read a study. Raises InputError where it is none, or no problem has all its records."""
    config = read_config(folder)
    by_problem: dict[str, dict[tuple[Cell, int], Record]] = defaultdict(dict)
    cells: dict[Cell, None] = {}
    for record in read_records(folder / RECORDS):
        cell = (record.strategy, record.budget)
        cells[cell] = None
        by_problem[record.id][cell, record.seed] = record
    seeds = int(config.get("seeds", 1))
    wanted = len(cells) * seeds
    complete = [id for id, found in by_problem.items() if len(found) == wanted]
    if not complete:
        raise InputError(f"{folder} has no problem with all its {wanted} records; run the same `bench run` to its end")
    rows = [by_problem[id] for id in complete]
    solves = {cell: _solves([[row[cell, seed] for seed in range(seeds)] for row in rows]) for cell in cells}
    oracle, pool = _oracle(rows, cells, seeds)
    predicted, probe = _predicted(rows, cells, seeds, bool(config.get("verifier_parameters")), solves)
    return Loaded(
        config.get("data", {}).get("name", folder.name),
        config,
        tuple(complete),
        seeds,
        max(0, int(config.get("data", {}).get("problems", len(complete))) - len(complete)),
        solves,
        oracle,
        predicted,
        probe,
        pool,
    )


def _solves(rows: list[list[Record]]) -> Solves:
    def mean(number: Any) -> Array:
        return _mean([[float(number(record)) for record in row] for row in rows])

    return Solves(
        mean(lambda r: r.correct),
        {
            "policy_tokens": mean(lambda r: r.usage.policy_tokens),
            "verifier_tokens": mean(lambda r: r.usage.verifier_tokens),
            "flops": mean(lambda r: r.usage.policy_flops + r.usage.verifier_flops),
            "seconds": mean(lambda r: r.usage.seconds),
        },
    )


def _detail(rows: list[dict[tuple[Cell, int], Record]], cell: Cell, seeds: int, name: str) -> Array:
    return _mean([[float(row[cell, seed].detail[name]) for seed in range(seeds)] for row in rows])


def _mean(rows: list[list[float]]) -> Array:
    """Over seeds."""
    return np.asarray(np.array(rows).mean(axis=1), np.float64)


def _oracle(
    rows: list[dict[tuple[Cell, int], Record]], cells: Mapping[Cell, None], seeds: int
) -> tuple[Array | None, tuple[int, Array] | None]:
    pooled = [cell for cell in cells if "right_samples" in rows[0][cell, 0].detail]
    largest = max(pooled, key=lambda cell: cell[1], default=None)
    if largest is None:
        return None, None
    right = _detail(rows, largest, seeds, "right_samples")
    return right / largest[1], (largest[1], right)


def _predicted(
    rows: list[dict[tuple[Cell, int], Record]],
    cells: Mapping[Cell, None],
    seeds: int,
    verified: bool,
    solves: Mapping[Cell, Solves],
) -> tuple[Array | None, Mapping[str, Array] | None]:
    """The difficulty estimate of :func:`edge_tts.search.difficulty.probe`, read off the cell that did the same work."""
    cell = ("weighted" if verified else "majority", PROBE)
    if cell not in cells or "mean_score" not in rows[0][cell, 0].detail:
        return None, None
    if verified:
        score = _detail(rows, cell, seeds, "mean_score")
    else:
        score = _mean([[row[cell, seed].support for seed in range(seeds)] for row in rows])
    return score, solves[cell].costs
