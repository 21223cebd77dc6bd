"""``edge-reason bench``: measure strategies on problems, fit a strategy table, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_tts.errors import InputError

if TYPE_CHECKING:
    from edge_tts.bench.study import Study
    from edge_tts.solver import Solver

STRATEGIES = "greedy,majority,adaptive,best-of-n,weighted,beam,revise"
FULL_BATCH = 32
"""Sequences that use the machine well; small budgets share a batch."""


@click.group()
def command() -> None:
    """Benchmarks: run a study, fit a strategy table on it, report what it says."""


@command.command("run")
@click.option("--data", required=True, help="JSON lines with answers, or one of gsm8k, svamp, math-500.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder; the same command resumes.")
@click.option("--pack", default=None, help="Pack, by name or folder.")
@click.option("--strategies", default=STRATEGIES, show_default=True, help="Separated by commas; auto too.")
@click.option("--budgets", default="1,2,4,8,16", show_default=True, help="Generations a problem.")
@click.option("--search-budgets", default=None, help="Budgets of what decodes for itself: beam, revise, auto.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--first", type=click.IntRange(1), default=None, help="Only so many problems.")
@click.option("--skip-bad", is_flag=True, help="Go on without the lines of --data that cannot be used.")
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Problems under way at once.")
@click.option("--memory", type=float, default=None, help="Memory cap in MB.")
@click.option("--profile", default=None, help="Device profile, by name or file; detected by default.")
@click.option("--calculator/--no-calculator", default=True, help="Let the runtime write results of equations.")
def run_command(
    data: str,
    out: Path,
    pack: str | None,
    strategies: str,
    budgets: str,
    search_budgets: str | None,
    seeds: int,
    first: int | None,
    skip_bad: bool,
    parallel: int | None,
    memory: float | None,
    profile: str | None,
    calculator: bool,
) -> None:
    """Solve every problem with every strategy at every budget; each solve is a line of OUT/records.jsonl."""
    from edge_tts.bench import datasets, machine
    from edge_tts.bench.records import open_study
    from edge_tts.bench.study import Grid, Study, config
    from edge_tts.solver import Solver, uses_verifier

    sampled = _numbers(budgets, "--budgets")
    searched = _numbers(search_budgets, "--search-budgets") if search_budgets else sampled
    grid = Grid(_strategies(strategies), sampled, searched, seeds)
    chosen = datasets.load(data, skip_bad)
    for sentence in chosen.left_out:
        click.echo(f"left out: {sentence}", err=True)
    problems = chosen.problems[:first]
    longest = max(len(p.question.encode()) for p in problems)
    largest = max(budget for _, budget in grid.sampled + grid.searched)
    together = parallel or max(2, 2 * FULL_BATCH // largest)
    with Solver(
        pack,
        profile,
        memory,
        generations=min(FULL_BATCH, together * largest),
        prompt_tokens=longest // 3 + 16,
        calculator=calculator,
        verifier=any(map(uses_verifier, grid.strategies)),
    ) as solver:
        solver.deadline_s = None
        open_study(out, {**config(solver, chosen, len(problems), grid), "made_on": machine.describe()})
        _run(Study(out, problems, grid), solver, together)


def _run(study: Study, solver: Solver, parallel: int) -> None:
    """Solve what is missing, with a bar; the line at the end says how busy the models were."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if study.done:
        console.print(f"{len(study.done)} of {study.total()} records are in {study.folder} already")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("solving", total=study.missing_generations())
        for label, generations in study.run(solver, parallel):
            bar.update(task, advance=generations, description=label)
    click.echo(study.summary())


def _strategies(text: str) -> tuple[str, ...]:
    """Split at commas, but for those between the settings of one strategy, as in "lookahead:m=4,k=2"."""
    found: list[str] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        if found and "=" in piece and ":" not in piece:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    if len(set(found)) < len(found) or not found:
        raise InputError(f"--strategies {text!r} names none, or one twice; give for example majority,weighted,beam:m=4")
    return tuple(found)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1024 for part in parts):
        raise InputError(f"{option} {text!r} is no list of whole numbers from 1 to 1024; give for example 1,4,16")
    return tuple(sorted({int(part) for part in parts}))
