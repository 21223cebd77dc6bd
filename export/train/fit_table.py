"""Fit the strategy table on held-out training problems.

Each problem is probed as the solver would, then every strategy goes on from the same probe; the
table takes, for each bin of predicted difficulty, the strategy with the best shrunken accuracy.

    python -m edge_tts.export.train.fit_table --pack FOLDER --data gsm8k_train.jsonl \\
        --problems 100 --budget 16 --rows fit.jsonl --out table.json
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

from rich.progress import Progress

from edge_tts.allocate import BINS
from edge_tts.answers import is_correct
from edge_tts.core import Budget, Event, Trace
from edge_tts.difficulty import probe
from edge_tts.export.train.data import Problem, read_problems, split
from edge_tts.search.context import SearchContext
from edge_tts.search.select import Choice, best_scored, majority, weighted
from edge_tts.search.strategy import Strategy, run
from edge_tts.solver import Solver

PROBE = 4
SEARCHED = ("beam", "dvts", "revise")
"""Strategies that are run for themselves; the sampling ones choose from one shared pool."""
PRIOR = 10
"""Pseudo-problems that pull a bin's accuracy towards the strategy's own over all bins."""
TABLE_BUDGETS = (8, 16, 64)

_T = TypeVar("_T")


def drain(events: Generator[Event, None, _T]) -> _T:
    """Run a search to its end and return what it returns."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            value: _T = done.value
            return value


def context(solver: Solver, generations: int, seed: int) -> SearchContext:
    return SearchContext(
        solver.policy,
        solver.verifier,
        solver.pack.prompts,
        solver.pack.sampling,
        seed=seed,
        budget=Budget(generations=generations),
    )


def measure(solver: Solver, problem: Problem, budget: int, seed: int) -> dict[str, Any]:
    """Whether each strategy answers ``problem``, all continuing one probe."""
    probed = drain(probe(problem.question, context(solver, budget, seed), PROBE))

    def searched(kind: str) -> tuple[str, tuple[Trace, ...], Trace | None]:
        search = context(solver, budget, seed + 1)
        search.claim(PROBE)
        outcome = drain(run(problem.question, Strategy.parse(kind, budget), search, probed.traces))
        return kind, outcome.traces, outcome.best

    chosen: dict[str, str | None] = {}
    for kind, traces, best in map(searched, ("weighted", *SEARCHED)):
        chosen[kind] = best.answer if best else None
        if kind == "weighted":
            choices: dict[str, Choice] = {
                "majority": majority(traces),
                "best-of-n": best_scored(traces, "last"),
                "weighted": weighted(traces, "last"),
            }
            chosen |= {name: c.best.answer if c.best else None for name, c in choices.items()}
    right = {kind: is_correct(answer, problem.answer) for kind, answer in chosen.items()}
    return {"id": problem.id, "score": probed.score, "right": right}


def fit(rows: Sequence[dict[str, Any]], budget: int) -> dict[str, Any]:
    """The table, with the accuracies it was chosen by."""
    edges = sorted(quantiles([r["score"] for r in rows], n=BINS), reverse=True)
    kinds = list(rows[0]["right"])
    overall = {k: sum(r["right"][k] for r in rows) / len(rows) for k in kinds}
    cells, evidence = [], []
    for index in range(BINS):
        inside = [r for r in rows if sum(r["score"] < e for e in edges) == index]
        right = {k: sum(r["right"][k] for r in inside) for k in kinds}
        shrunken = {k: (right[k] + PRIOR * overall[k]) / (len(inside) + PRIOR) for k in kinds}
        best = max(kinds, key=lambda k: shrunken[k])
        cells.append([best] * len(TABLE_BUDGETS))
        evidence.append({"problems": len(inside), "right": right, "chosen": best})
    return {
        "format": 1,
        "probe": PROBE,
        "edges": [round(e, 5) for e in edges],
        "budgets": list(TABLE_BUDGETS),
        "cells": cells,
        "evidence": {
            "fitted_at_generations": budget,
            "problem_ids": [r["id"] for r in rows],
            "overall": {k: round(v, 4) for k, v in overall.items()},
            "bins": evidence,
        },
    }


def collect(solver: Solver, problems: Sequence[Problem], budget: int, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each problem, measured now or kept in ``out`` from an earlier run."""
    kept = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    yield from kept
    done = {r["id"] for r in kept}
    todo = [p for p in problems if p.id not in done]
    with out.open("a", encoding="utf-8") as sink, ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda p: measure(solver, p, budget, seed), todo):
            sink.write(json.dumps(found) + "\n")
            sink.flush()
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default=None, help="pack to fit a table for, by name or folder")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines; the held-out part is used")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, required=True, help="measurements, one line a problem; resumed")
    parser.add_argument("--out", type=Path, required=True, help="the table")
    options = parser.parse_args()
    _, held_out = split(read_problems(options.data))
    random.Random(options.seed).shuffle(held_out)
    problems = held_out[-options.problems :]  # the first ones validated the PRM
    longest = max(len(p.question.encode()) for p in problems)
    rows = []
    with (
        Solver(options.pack, generations=4 * options.budget, prompt_tokens=longest // 3 + 16) as solver,
        Progress() as bar,
    ):
        for found in bar.track(collect(solver, problems, options.budget, options.seed, options.rows), len(problems)):
            rows.append(found)
    options.out.write_text(json.dumps(fit(rows, options.budget), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
