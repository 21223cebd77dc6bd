"""Latency and memory of a single caller: a few questions, one at a time, with a process for every cell.

A study solves problems in shared batches, so its records show the machine's throughput instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_tts.bench.figures import FrontPoint
from edge_tts.bench.loading import Array, Cell, Loaded
from edge_tts.bench.optimal import share
from edge_tts.bench.runtime_settings import RuntimeSettings
from edge_tts.core import Budget
from edge_tts.files.json_lines import Appender, read_lines
from edge_tts.questions.reading import Question
from edge_tts.search.call import uses_verifier

ALONE = "alone.jsonl"
WARM_UP = "Tom has 3 boxes of 8 pencils. How many pencils are there?"


def measure_alone(
    folder: Path, cells: Sequence[Cell], problems: Sequence[Question], settings: RuntimeSettings
) -> Iterator[tuple[str, int]]:
    """Measure the cells that the study's folder lacks; yields each cell when it is done."""
    path = folder / ALONE
    done = {(row["strategy"], row["budget"]) for _, row in read_lines(path)}
    with Appender(path) as sink:
        for strategy, budget in cells:
            if (strategy, budget) not in done:
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    sink.add([process.submit(_one_cell, strategy, budget, tuple(problems), settings).result()])
            yield strategy, budget


def _one_cell(strategy: str, budget: int, problems: tuple[Question, ...], settings: RuntimeSettings) -> dict[str, Any]:
    results = []
    own = replace(settings, generations=budget, verifier=uses_verifier(strategy))
    with own.open() as solver:
        solver.solve(WARM_UP, strategy, Budget(generations=budget))
        for problem in problems:
            results.append(solver.solve(problem.question, strategy, Budget(generations=budget)))
        planned = solver.plan.memory.total
    return {
        "strategy": strategy,
        "budget": budget,
        "ids": [p.id for p in problems],
        "seconds": [round(r.usage.seconds, 4) for r in results],
        "peak_memory_mb": round(max(r.usage.peak_memory_mb for r in results), 1),
        "planned_memory_mb": round(planned, 1),
    }


def front(name: str, study: Loaded, folder: Path, weights: Array) -> list[FrontPoint]:
    """The study's accuracy with the latency and memory of a single caller; empty where these were not measured."""
    found = []
    for _, row in read_lines(folder / ALONE):
        solves = study.cells.get((row["strategy"], row["budget"]))
        if solves is None:
            continue
        accuracy = share(solves.correct, weights)
        seconds = round(median(row["seconds"]), 4)
        memory = row["peak_memory_mb"] or None  # 0 where the system does not tell
        found.append(FrontPoint(name, row["strategy"], row["budget"], accuracy, seconds, memory, True))
    figures = np.array([(-p.accuracy.value, p.latency_s, p.memory_mb or np.inf) for p in found])
    return [replace(p, on_front=not _beaten(figures, i)) for i, p in enumerate(found)]


def _beaten(figures: Array, index: int) -> bool:
    """Whether another row is smaller in one column and larger in none."""
    mine = figures[index]
    return bool(((figures <= mine).all(axis=1) & (figures < mine).any(axis=1)).any())
