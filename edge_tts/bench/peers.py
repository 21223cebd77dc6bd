"""This runtime against a search with Hugging Face transformers, with the same models and problems.

    python -m edge_tts.bench.peers --data svamp_test.jsonl --first 8 --budget 16 --out records/peers.json

The other side is :mod:`edge_tts.bench.transformers_peer`. Both sides have the same weights of the policy (dequantised
on the other side), the same reward model in ONNX Runtime, prompts, temperature, top-k, token limit, n and m, the same
processor cores and no calculator. Both score a trace by its last step and solve one problem at a time. Each does its
own search: when a trace of ours ends, so does its beam, while the other side fills its n lanes again and may so write
more. ``generated_tokens`` says how much each side wrote.

Every solve is one line of ``OUT.d/rows.jsonl``, and the same command resumes. Each side runs in a process of its own,
for the reason that :mod:`edge_tts.bench.engine` gives. While one side computes, the other sleeps.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib import metadata, util
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import binomtest

from edge_tts.bench import machine
from edge_tts.bench.datasets import DataSet, load
from edge_tts.bench.engine import QUESTION
from edge_tts.bench.intervals import ratio_interval
from edge_tts.bench.records import Record, only_study, open_study, read_records
from edge_tts.bench.transformers_peer import BEAM_WIDTH, WARM_UP_BUDGET, Method, Solved, TransformersPeer
from edge_tts.core import Budget
from edge_tts.errors import BackendError, EdgeError, InputError, PackError
from edge_tts.files.atomic import disk_errors
from edge_tts.files.json_lines import Appender
from edge_tts.packs.pack import Pack, find_pack, prepare_pack
from edge_tts.questions.reading import Question
from edge_tts.runtimes import device
from edge_tts.solver import Solver

METHODS: tuple[Method, ...] = ("best-of-n", "beam")
SIDES = ("ours", "transformers")
FIGURES = ("seconds", "policy_tokens", "generated_tokens", "verifier_tokens")

_R = TypeVar("_R")


class Ours:
    """This runtime."""

    def __init__(self, pack: Pack, budget: int, prompt_tokens: int) -> None:
        self._load = partial(Solver, pack, generations=budget, prompt_tokens=prompt_tokens, calculator=False)
        self._solver = self._load()

    def prepare(self, method: Method) -> None:
        """Empty the caches, which may hold the same problems from the other method; then warm up."""
        self._solver.close()
        self._solver = self._load()
        self._solver.deadline_s = None
        self.solve(method, QUESTION, WARM_UP_BUDGET, 0)

    def tokenize(self, text: str) -> tuple[int, ...]:
        return self._solver.policy.tokenize(text)

    def solve(self, method: Method, question: str, n: int, seed: int) -> Solved:
        strategy = f"weighted:n={n}" if method == "best-of-n" else f"beam:n={n},m={min(BEAM_WIDTH, n)}"
        found = self._solver.solve(question, strategy, Budget(generations=n), seed)
        return Solved(found.answer, found.support, found.scores, found.usage)


# --- each side's process ------------------------------------------------------------------------------------------

_side: Ours | TransformersPeer


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}  # their output would break our progress bar


def _call(work: Callable[..., _R], *arguments: Any) -> _R:
    """Do ``work`` so that Ctrl-C interrupts it; a side that waits ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work(*arguments)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open(make: Callable[..., Ours | TransformersPeer], *arguments: Any) -> tuple[int, ...]:
    """Load a side. Returns its tokens of a text, which must be the same on both sides."""
    global _side
    _side = make(*arguments)
    return _side.tokenize(f"{QUESTION}\n12*8=96\n")


def _prepare(method: Method) -> None:
    _side.prepare(method)


def _solve(method: Method, question: str, n: int, seed: int) -> Solved:
    return _side.solve(method, question, n, seed)


# --- the comparison -----------------------------------------------------------------------------------------------


def compare(
    pack: Pack, problems: Sequence[Question], n: int, seed: int, done: set[tuple[str, str]]
) -> Iterator[Record]:
    """Solve what is not in ``done`` (pairs of id and strategy), method by method, the sides in turn; yields records.

    Raises EdgeError where a side cannot be loaded, where the two tokenise differently, or where a process dies.
    """
    longest = max(len(problem.question.encode()) for problem in problems)
    makers: list[tuple[Any, ...]] = [(Ours, pack, n, longest // 3 + 16), (TransformersPeer, pack)]
    with ExitStack() as stack:
        spawn = get_context("spawn")
        sides = {side: stack.enter_context(ProcessPoolExecutor(1, spawn, _begin)) for side in SIDES}
        try:
            opened = [sides[side].submit(_call, _open, *made) for side, made in zip(SIDES, makers, strict=True)]
            if opened[0].result() != opened[1].result():
                raise PackError(f"transformers does not tokenise as the pack {pack.name} does; choose another --pack")
            for method in METHODS:
                turns = [(p, side) for i, p in enumerate(problems) for side in (SIDES if i % 2 == 0 else SIDES[::-1])]
                missing = [(p, side) for p, side in turns if (p.id, f"{side}/{method}") not in done]
                for side in SIDES if missing else ():
                    sides[side].submit(_call, _prepare, method).result()
                for problem, side in missing:
                    solved = sides[side].submit(_call, _solve, method, problem.question, n, seed).result()
                    key = (problem, f"{side}/{method}", n, seed)
                    yield Record.of(*key, solved.answer, "complete", solved.usage, solved.support, solved.scores)
        except BrokenProcessPool as error:
            raise BackendError("the process of one side died, perhaps for want of memory; free some") from error


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """For each method, the figures of both sides, and for each figure the ratio of transformers to ours.

    Only problems that both sides solved count.
    """
    found: dict[str, Any] = {}
    for method in METHODS:
        by_side = {side: {r.id: r for r in records if r.strategy == f"{side}/{method}"} for side in SIDES}
        ids = [id_ for id_ in by_side["ours"] if id_ in by_side["transformers"]]
        if not ids:
            continue
        rows = {side: [by_side[side][id_] for id_ in ids] for side in SIDES}
        found[method] = {side: _figures(rows[side]) for side in SIDES}
        values = {f: [[getattr(r.usage, f) for r in rows[side]] for side in SIDES] for f in FIGURES}
        found[method]["ratios"] = {f: ratio(theirs, ours) for f, (ours, theirs) in values.items()}
    return found


def _figures(rows: Sequence[Record]) -> dict[str, Any]:
    right = sum(r.correct for r in rows)
    sums = {f: round(sum(getattr(r.usage, f) for r in rows), 3) for f in FIGURES}
    return {
        "problems": len(rows),
        "right": right,
        "interval95": [round(bound, 4) for bound in binomtest(right, len(rows)).proportion_ci(method="wilson")],
        **sums,
        "median_seconds": round(statistics.median(r.usage.seconds for r in rows), 3),
        "peak_memory_mb": round(max(r.usage.peak_memory_mb for r in rows), 1),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """The ratio of the sums, its 95% interval (a bootstrap over problems), and the median of the problems' ratios."""
    found = ratio_interval(above, below)
    return {
        "ratio": round(found.value, 3),
        "interval95": [round(found.low, 3), round(found.high, 3)],
        "median": round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3),
    }


@click.command()
@click.option("--data", required=True, help="JSON lines with answers, or a data set: gsm8k, svamp, math-500.")
@click.option("--first", type=click.IntRange(1), default=8, show_default=True, help="Problems, from the first on.")
@click.option("--budget", type=click.IntRange(1, 64), default=16, show_default=True, help="Generations per problem.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every solve.")
@click.option("--pack", default=None, help="Pack, by name or folder (default: the built-in one).")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Record; its rows are kept in OUT.d.")
def main(data: str, first: int, budget: int, seed: int, pack: str | None, out: Path) -> None:
    """Compare this runtime with a search through transformers, and write a record."""
    try:
        record = run(load(data), first, budget, seed, prepare_pack(find_pack(pack)), out)
        with disk_errors(out.parent):
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except EdgeError as error:
        raise click.ClickException(str(error)) from error
    show(record["methods"])


def run(data: DataSet, first: int, budget: int, seed: int, pack: Pack, out: Path) -> dict[str, Any]:
    """Make the comparison, or resume an interrupted one, and return the record. Raises EdgeError."""
    missing = [name for name in ("torch", "transformers") if util.find_spec(name) is None]
    if missing:
        raise InputError(f"{missing[0]} is not installed; run `pip install 'edge-reasoning-runtime[export]'`")
    if pack.verifier is None:
        raise InputError(f"both searches need a verifier and the pack {pack.name} has none; choose another --pack")
    problems = data.problems[:first]
    config = {
        "machine": machine.describe(),
        "peer": {name: metadata.version(name) for name in ("torch", "transformers")},
        "pack": f"{pack.name} {pack.version}",
        "pack_files": {name: entry.sha256 for name, entry in sorted(pack.files.items())},
        "sampling": asdict(pack.sampling),
        "threads": device.threads(None),
        "data": {"name": data.name, "sha256": data.sha256},
        "problems": [problem.id for problem in problems],
        "budget": budget,
        "beam_width": min(BEAM_WIDTH, budget),
        "seed": seed,
    }
    folder = out.with_suffix(".d")
    with only_study(folder):
        open_study(folder, config)
        rows = folder / "rows.jsonl"
        done = {(record.id, record.strategy) for record in read_records(rows)}
        total = len(problems) * len(METHODS) * len(SIDES)
        if len(done) < total:
            with Appender(rows) as sink, Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task("loading", total=total, completed=len(done))
                for record in compare(pack, problems, budget, seed, done):
                    sink.add([record.to_dict()])
                    bar.update(task, advance=1, description=record.strategy)
    command = f"bench.peers --data {data.name} --first {first} --budget {budget} --seed {seed}"
    return {"command": command, **config, "methods": summarise(read_records(rows))}


def show(methods: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table()
    for name in ("method", "side", "right", *FIGURES):
        table.add_column(name.replace("_", " "), justify="left" if name in ("method", "side") else "right")
    for method, found in methods.items():
        for side in SIDES:
            row = found[side]
            right = f"{row['right']}/{row['problems']}"
            table.add_row(method, side, right, *(f"{row[figure]:,.5g}" for figure in FIGURES))
        ratios = (found["ratios"][figure] for figure in FIGURES)
        texts = ("{ratio:.2f} ({interval95[0]:.2f} to {interval95[1]:.2f})".format(**r) for r in ratios)
        table.add_row("", "ratio", "", *texts, end_section=True)
    Console().print(table)


if __name__ == "__main__":
    main()
