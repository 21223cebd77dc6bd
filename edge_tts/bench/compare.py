"""Strategies side by side at equal budget, on the same problems with the same seed.

    python -m edge_tts.bench.compare --data svamp_test.jsonl --data gsm8k_test.jsonl --first 100 \\
        --budget 16 --out records/strategies.json

Every solve is kept in ``OUT.d/`` as one JSON line (the same command resumes); the record holds the
problem ids, the settings, the machine and one row of figures per data set and strategy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from math import fsum
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edge_tts.batch import Question, Settings, append, finished_ids, read_questions, row, solve_all
from edge_tts.bench import machine
from edge_tts.core import Budget
from edge_tts.errors import EdgeError
from edge_tts.intervals import wilson
from edge_tts.solver import Solver

STRATEGIES = ("greedy", "majority", "adaptive", "best-of-n", "weighted", "beam", "revise", "auto")
FIGURES = ("policy_tokens", "verifier_tokens", "policy_flops", "verifier_flops")


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its interval, and mean cost per problem."""
    right = sum(r["correct"] for r in rows)
    low, high = wilson(right, len(rows))
    means = {f: fsum(r["usage"][f] for r in rows) / len(rows) for f in FIGURES}
    return {
        "problems": len(rows),
        "right": right,
        "accuracy": round(right / len(rows), 4),
        "interval95": [round(low, 4), round(high, 4)],
        **{f"mean_{f}": round(v) for f, v in means.items()},
        "mean_seconds": round(fsum(r["wall_seconds"] for r in rows) / len(rows), 3),
        "mean_latency_in_shared_batch": round(fsum(r["usage"]["seconds"] for r in rows) / len(rows), 3),
    }


def run_one(
    solver: Solver, questions: Sequence[Question], settings: Settings, parallel: int, out: Path
) -> list[dict[str, Any]]:
    """Solve what is missing in ``out``; returns all its rows.

    A row's ``wall_seconds`` is the time since the row before it, so that their mean is wall time per
    problem, however many share the batch and however often the run was resumed.
    """
    done = finished_ids(out, settings)
    todo = [q for q in questions if q.id not in done]
    with out.open("a", encoding="utf-8") as sink, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{out.stem}", total=len(questions), completed=len(done))
        last = time.monotonic()
        for question, result in solve_all(solver, todo, settings, parallel):
            now = time.monotonic()
            append(sink, {**row(question, result, settings), "wall_seconds": round(now - last, 4)})
            last = now
            bar.advance(task)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@click.command()
@click.option("--data", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--first", type=click.IntRange(1), default=100, show_default=True, help="Problems of each file.")
@click.option("--strategies", default=",".join(STRATEGIES), show_default=True)
@click.option("--budget", type=click.IntRange(1), default=16, show_default=True, help="Generations per problem.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--memory", type=float, default=None, help="Memory cap in MB.")
@click.option("--profile", default=None)
@click.option("--pack", default=None)
@click.option("--parallel", type=int, default=4, show_default=True, help="Problems sharing a batch.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...],
    first: int,
    strategies: str,
    budget: int,
    seed: int,
    memory: float | None,
    profile: str | None,
    pack: str | None,
    parallel: int,
    out: Path,
) -> None:
    """Compare strategies at equal budget and write a record."""
    try:
        files = {path.stem: read_questions(path)[:first] for path in data}
        longest = max(len(q.question.encode()) for questions in files.values() for q in questions)
        rows = []
        folder = out.with_suffix(".d")
        folder.mkdir(parents=True, exist_ok=True)
        with Solver(pack, profile, memory, generations=parallel * budget, prompt_tokens=longest // 3 + 16) as solver:
            solver.deadline_s = None
            for strategy in strategies.split(","):
                settings = Settings(
                    strategy, Budget(generations=budget), seed, f"{solver.pack.name} {solver.pack.version}", True
                )
                for name, questions in files.items():
                    kept = run_one(solver, questions, settings, parallel, folder / f"{name}-{strategy}.jsonl")
                    rows.append({"data": name, "strategy": strategy, **summarise(kept)})
            record = {
                "command": f"bench.compare --first {first} --budget {budget} --seed {seed} --parallel {parallel}",
                "machine": machine.describe(),
                "pack": f"{solver.pack.name} {solver.pack.version}",
                "plan": solver.plan.to_dict(),
                "problems": {name: [q.id for q in questions] for name, questions in files.items()},
                "rows": rows,
            }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        show(rows)
    except EdgeError as error:
        raise click.ClickException(str(error)) from error


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the figures as a table."""
    table = Table()
    for name in ("data", "strategy", "right", "95% interval", "policy tokens", "verifier tokens", "GFLOP", "s"):
        table.add_column(name, justify="left" if name in ("data", "strategy") else "right")
    for r in rows:
        low, high = r["interval95"]
        flops = (r["mean_policy_flops"] + r["mean_verifier_flops"]) / 1e9
        table.add_row(
            r["data"],
            r["strategy"],
            f"{r['right']}/{r['problems']}",
            f"{low:.1%} to {high:.1%}",
            str(r["mean_policy_tokens"]),
            str(r["mean_verifier_tokens"]),
            f"{flops:.0f}",
            f"{r['mean_seconds']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
