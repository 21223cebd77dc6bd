"""``edge-reason bench``: measure strategies on problems, fit what ``auto`` does, report."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.bench_controller import controller_command, escalation_command, origin, plot_command
from edge_tts.commands.config import FORMATS
from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from edge_tts.bench.datasets import DataSet
    from edge_tts.bench.runtime_settings import RuntimeSettings
    from edge_tts.bench.study import Study
    from edge_tts.questions.reading import Question
    from edge_tts.search.call import Format

STRATEGIES = "greedy,majority,adaptive,best-of-n,weighted,beam,revise"
FULL_BATCH = 32
"""Sequences that fill the machine. Problems with smaller budgets share a batch."""

_DATA = click.option("--data", required=True, help="JSON lines with answers, or one of gsm8k, svamp, math-500.")
_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The study's folder; the same command resumes."
)
_BUDGETS = click.option("--budgets", default="1,2,4,8,16", show_default=True, help="Generations for each problem.")
_SEEDS = click.option("--seeds", type=click.IntRange(1, 1000), default=1, show_default=True)
_FIRST = click.option("--first", type=click.IntRange(1), default=None, help="Use only the first N problems.")
_SKIP_BAD = click.option("--skip-bad", is_flag=True, help="Leave out unusable lines of --data.")


@click.group()
def command() -> None:
    """Benchmarks: run a study, fit what `auto` does to it, write a report."""


for _other in (controller_command, escalation_command, plot_command):
    command.add_command(_other)


@command.command("run")
@_DATA
@_OUT
@click.option("--model", default=None, help="GGUF file, name (see `model list`), or owner/repo[:file].")
@click.option("--pack", default=None, help="Pack, by name or folder.")
@click.option("--strategies", default=STRATEGIES, show_default=True, help='Separated by commas; "auto" is allowed.')
@_BUDGETS
@click.option(
    "--search-budgets",
    default=None,
    help="Budgets of beam, revise and auto, which do not share samples; default: --budgets.",
)
@_SEEDS
@_FIRST
@_SKIP_BAD
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Problems solved at the same time.")
@click.option("--memory", type=float, default=None, help="Memory cap in MB.")
@click.option("--profile", default=None, help="Device profile, by name or file; detected by default.")
@click.option("--calculator/--no-calculator", default=True, help="Let the runtime write the results of equations.")
@click.option("--format", type=click.Choice(FORMATS), default="auto", help="How it is asked.")
@click.option(
    "--alone", type=click.IntRange(0), default=0, help="Afterwards also time the first N questions one by one."
)
@click.option("--ray", "address", default=None, help="Run on the Ray cluster at this address (auto, HOST:PORT).")
@click.option(
    "--ray-cores", type=click.IntRange(1), default=None, help="Cores of each runtime on the cluster; default: as here."
)
def run_command(
    data: str,
    out: Path,
    model: str | None,
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
    format: Format,
    alone: int,
    address: str | None,
    ray_cores: int | None,
) -> None:
    """Solve every problem with every strategy at every budget; each solve is a line of OUT/records.jsonl."""
    from edge_tts.bench import machine
    from edge_tts.bench.records import only_study, open_study
    from edge_tts.bench.runtime_settings import RuntimeSettings
    from edge_tts.bench.study import Grid, Study, config
    from edge_tts.profiles.loader import detect, load
    from edge_tts.search.call import uses_verifier

    sampled = _numbers(budgets, "--budgets")
    searched = _numbers(search_budgets, "--search-budgets") if search_budgets else sampled
    grid = Grid(_strategies(strategies), sampled, searched, seeds, format)
    chosen, problems = _problems(data, skip_bad, first)
    largest = max(budget for _, budget in grid.sampled + grid.searched)
    together = parallel or max(2, 2 * FULL_BATCH // largest)
    settings = RuntimeSettings(
        pack,
        load(profile) if profile else detect()[0],
        memory,
        generations=min(FULL_BATCH, together * largest),
        prompt_tokens=max(len(p.question.encode()) for p in problems) // 3 + 16,
        calculator=calculator,
        verifier=any(map(uses_verifier, grid.strategies)),
        model=model,
    )
    with only_study(out), ExitStack() as stack:
        with progress_bar() as progress:
            solver = stack.enter_context(settings.open(progress))
        open_study(out, {**config(solver, chosen, len(problems), grid), "made_on": machine.describe()})
        study = Study(out, problems, grid)
        if address is None:
            _follow(study, study.run(solver, together))
        else:
            from edge_tts.bench.cluster import run_study

            stack.close()  # this machine's cores are for a worker
            _follow(study, run_study(study, settings, address, together, ray_cores))
        stack.close()
        if alone:
            _alone(study, settings, problems[:alone])


def _follow(study: Study, work: Generator[tuple[str, int], None, None]) -> None:
    """Show the progress of ``work``, and at the end how busy the models were."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if study.done:
        console.print(f"{len(study.done)} of {study.total()} records are in {study.folder} already")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar, closing(work):
        task = bar.add_task("generations", total=study.missing_generations())
        for label, generations in work:
            bar.update(task, advance=generations, description=f"generations: {label}")
    click.echo(study.summary())


def _alone(study: Study, settings: RuntimeSettings, problems: tuple[Question, ...]) -> None:
    from edge_tts.bench.alone import measure_alone

    cells = study.grid.sampled + study.grid.searched
    with progress_bar() as progress:
        for number, (strategy, budget) in enumerate(measure_alone(study.folder, cells, problems, settings), 1):
            progress(number / len(cells), f"alone: {strategy} at {budget}")


@command.command("baseline")
@_DATA
@_OUT
@click.option("--endpoint", "url", required=True, help="OpenAI-compatible server, such as http://127.0.0.1:8000.")
@click.option("--model", required=True, help="Its name there.")
@click.option("--key-variable", default=None, help="Environment variable that holds the API key.")
@click.option("--strategies", default="greedy,majority,adaptive", show_default=True)
@_BUDGETS
@_SEEDS
@_FIRST
@_SKIP_BAD
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, show_default=True)
@click.option(
    "--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Longest wait for a token, in seconds."
)
@click.option("--retries", type=click.IntRange(0, 100), default=4, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=2048, show_default=True)
@click.option("--temperature", type=float, default=0.7, show_default=True)
@click.option("--stream/--no-stream", default=True, help="No: for servers that report usage of whole answers only.")
@click.option("--price-in", type=float, default=None, help="Price of a million prompt tokens.")
@click.option("--price-out", type=float, default=None, help="Price of a million new tokens.")
@click.option("--parameters", type=float, default=None, help="Its weights, such as 1.7e9, for FLOPs.")
def baseline_command(
    data: str,
    out: Path,
    strategies: str,
    budgets: str,
    seeds: int,
    first: int | None,
    skip_bad: bool,
    parameters: float | None,
    **endpoint_options: Any,
) -> None:
    """Ask a larger model behind an endpoint the same problems; makes a study like those of `run`."""
    from edge_tts.bench import baseline, machine
    from edge_tts.bench.records import RECORDS, only_study, open_study, read_records
    from edge_tts.files.json_lines import Appender
    from edge_tts.runtimes.endpoint import Endpoint, EndpointSettings

    settings = EndpointSettings(parameters=int(parameters) if parameters else None, **endpoint_options)
    wanted, numbers = _strategies(strategies), _numbers(budgets, "--budgets")
    chosen, problems = _problems(data, skip_bad, first)
    endpoint = Endpoint(settings)
    grid = {"strategies": wanted, "budgets": numbers, "seeds": seeds, "data": chosen.describe(len(problems))}
    with only_study(out):
        open_study(out, {**baseline.config(settings), **grid, "made_on": machine.describe()})
        done = {record.key for record in read_records(out / RECORDS)}
        rows = baseline.run_baseline(endpoint, problems, wanted, numbers, range(seeds), done)
        with Appender(out / RECORDS) as sink, progress_bar() as progress, closing(rows):
            for number, records in enumerate(rows, 1):
                sink.add([record.to_dict() for record in records])
                progress(min(1.0, number / (len(problems) * seeds)), f"asking {settings.model}")
    click.echo(f"{len(read_records(out / RECORDS))} records in {out}")


@command.command("fit")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Write the table to this file.")
@click.option("--pack", type=click.Path(path_type=Path), default=None, help="Put the fits into this pack's folder.")
def fit_command(study: Path, out: Path | None, pack: Path | None) -> None:
    """Fit what `auto` does with a pack on STUDY. Use problems that no result is reported on.

    The strategy table says what is run for which difficulty; the controller's fit, where STUDY has pools of samples,
    when a vote stops. A table that names nothing but votes is left out of a pack that has the other.
    """
    from edge_tts.bench.loading import load_study
    from edge_tts.bench.strategy_table import fit
    from edge_tts.files.atomic import write_text
    from edge_tts.packs.build import set_fits
    from edge_tts.search.allocation import StrategyTable

    if (out is None) == (pack is None):
        raise InputError("give either --out FILE or --pack FOLDER, to say where the fit goes")
    table = fit(load_study(study))
    told = {key: table[key] for key in ("edges", "budgets", "cells")}
    if out is not None:
        write_text(out, json.dumps(table, indent=1) + "\n")
    if pack is not None:
        controller = _controller_of(study)
        left_out = controller is not None and StrategyTable.parse(table).only_votes
        set_fits(pack, None if left_out else table, controller)
        told |= {"table": not left_out, "controller": controller and controller["fits"]}
    click.echo(json.dumps(told))


def _controller_of(study: Path) -> dict[str, Any] | None:
    """The controller's fit on the pools of ``study``; None, and a note, where they are missing or too few."""
    from edge_tts.bench import controller_fit, controller_replay
    from edge_tts.bench.records import read_config

    try:
        config = read_config(study)
        if "reasoning_format" not in config:
            raise InputError(f"{study}/study.json does not say in which format it was asked; draw the study again")
        problems = controller_replay.read(study)
        found = controller_fit.fit(problems, max(len(problem.usual) for problem in problems), None)
    except InputError as error:
        click.echo(f"note: the pack gets no fit of the controller: {error}", err=True)
        return None
    return controller_fit.to_json({config["reasoning_format"]: found}, origin(config))


@command.command("report")
@click.argument("studies", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the page, the plots and the tables."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one JSON object.")
def report_command(studies: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Write a report on STUDIES: OUT/report.html, plots as PNG and SVG, figures as CSV and JSON."""
    from edge_tts.bench import page, plots, tables
    from edge_tts.bench.analysis import analyse

    with progress_bar() as progress:
        report = analyse(studies, progress)
        progress(1.0, "drawing")
        page.write(report, plots.draw(report, out), out / "report.html")
        tables.write_csv(report, out)
    click.echo(json.dumps(report.to_dict()) if as_json else f"{out / 'report.html'}")


def _problems(data: str, skip_bad: bool, first: int | None) -> tuple[DataSet, tuple[Question, ...]]:
    """The data set and its ``first`` problems; prints a line for each problem left out."""
    from edge_tts.bench import datasets

    chosen = datasets.load(data, skip_bad)
    for sentence in chosen.left_out:
        click.echo(f"left out: {sentence}", err=True)
    return chosen, chosen.problems[:first]


def _strategies(text: str) -> tuple[str, ...]:
    """Split at commas, except those between the settings of one strategy, as in "lookahead:m=4,k=2"."""
    found: list[str] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        if found and "=" in piece and ":" not in piece:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    if len(set(found)) < len(found) or not found:
        raise InputError(
            f"--strategies {text!r} is empty or names one twice; give for example majority,weighted,beam:m=4"
        )
    return tuple(found)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1024 for part in parts):
        raise InputError(f"{option} {text!r} is not a list of whole numbers from 1 to 1024; give for example 1,4,16")
    return tuple(sorted({int(part) for part in parts}))
