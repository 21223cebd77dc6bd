"""A study as arrays: one number for each problem, for every strategy at every budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.records import RECORDS, Record, read_config, read_records
from edge_tts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Cell = tuple[str, int]
"""A strategy and its budget."""
COSTS = ("policy_tokens", "verifier_tokens", "flops", "seconds")
PROBE = 4
"""Samples that estimate a problem's difficulty."""


@dataclass(frozen=True)
class Solves:
    """What one cell did. Every array has one number for each problem, the mean over seeds."""

    correct: Array
    """Share of seeds with a right answer."""
    costs: Mapping[str, Array]
    """By the names of ``COSTS``."""


@dataclass(frozen=True)
class Loaded:
    """A study's complete problems, in the same order in every array."""

    name: str
    config: Mapping[str, Any]
    problems: tuple[str, ...]
    seeds: int
    left_out: int
    """Problems that miss a record."""
    cells: Mapping[Cell, Solves]
    oracle: Array | None
    """Share of right samples in the largest pool; None where nothing was sampled."""
    predicted: Array | None
    """Mean verifier score of the first samples, or the share that agrees where there is no verifier; None without
    a pool of at least ``PROBE`` samples."""
    probe: Mapping[str, Array] | None
    """What ``predicted`` cost, by the names of ``COSTS``; None where ``predicted`` is None."""
    pool: tuple[int, Array] | None
    """Size of the largest pool, and how many of its samples are right (mean over seeds)."""

    @property
    def greedy_flops(self) -> float | None:
        """Mean FLOPs of one answer at temperature 0; None where no greedy answer was recorded."""
        solves = self.cells.get(("greedy", 1))
        return float(solves.costs["flops"].mean()) if solves else None


def load_study(folder: Path) -> Loaded:
    """Read a study. Raises InputError where the folder holds none, or no problem has all its records."""
    import pandas as pd

    config = read_config(folder)
    seeds, data = int(config.get("seeds", 1)), config.get("data", {})
    complete: list[str] = []
    solved = pd.DataFrame(map(_row, read_records(folder / RECORDS)))
    if len(solved):
        solved = solved.drop_duplicates(["strategy", "budget", "id", "seed"], keep="last")
        counts = solved["id"].value_counts(sort=False)
        complete = list(counts.index[counts == seeds * len(solved[["strategy", "budget"]].drop_duplicates())])
    if not complete:
        raise InputError(
            f"{folder} has no problem with all its records; run the same `bench run` to its end, or make them from its "
            f"samples with `python -m edge_tts.bench.pool_records {folder} --data FILE`"
        )
    means = solved.groupby(["strategy", "budget", "id"], sort=False).mean()
    tables: dict[Cell, pd.DataFrame] = {
        (str(strategy), int(budget)): table.droplevel(["strategy", "budget"]).loc[complete]
        for (strategy, budget), table in means.groupby(level=["strategy", "budget"], sort=False)
    }
    cells = {
        cell: Solves(_array(table, "correct"), {name: _array(table, name) for name in COSTS})
        for cell, table in tables.items()
    }
    pool = _largest_pool(tables)
    probe = ("weighted" if config.get("verifier_parameters") else "majority", PROBE)
    predicted = None
    if probe in tables and tables[probe]["mean_score"].notna().all():
        predicted = _array(tables[probe], "mean_score" if config.get("verifier_parameters") else "support")
    return Loaded(
        data.get("name", folder.name),
        config,
        tuple(complete),
        seeds,
        max(0, int(data.get("problems", len(complete))) - len(complete)),
        cells,
        pool[1] / pool[0] if pool else None,
        predicted,
        cells[probe].costs if predicted is not None else None,
        pool,
    )


def _row(record: Record) -> dict[str, Any]:
    usage = record.usage
    return {
        "id": record.id,
        "strategy": record.strategy,
        "budget": record.budget,
        "seed": record.seed,
        "correct": float(record.correct),
        "policy_tokens": usage.policy_tokens,
        "verifier_tokens": usage.verifier_tokens,
        "flops": usage.policy_flops + usage.verifier_flops,
        "seconds": usage.seconds,
        "support": record.support,
        "right_samples": record.detail.get("right_samples", np.nan),
        "mean_score": record.detail.get("mean_score", np.nan),
    }


def _array(table: pd.DataFrame, column: str) -> Array:
    return np.asarray(table[column], np.float64)


def _largest_pool(tables: Mapping[Cell, pd.DataFrame]) -> tuple[int, Array] | None:
    pooled = [cell for cell, table in tables.items() if table["right_samples"].notna().all()]
    largest = max(pooled, key=lambda cell: cell[1], default=None)
    return (largest[1], _array(tables[largest], "right_samples")) if largest else None
