"""Fits how much the vote of a text counts that states a false equation, on a study of training problems in words.

    python -m edge_tts.bench.doubts STUDY --out records/doubts.json

The pools of the study are voted on in random orders, with every weight of a grid. The weight that solves most is
taken; of equals the largest. What it gains is cross-validated: chosen on one half of the problems, measured on the
other. The runtime's own weight is :data:`edge_tts.reasoning.formats.DOUBTED_WEIGHT`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge_tts.bench.controller_replay import Problem, orders, read
from edge_tts.bench.intervals import mean_interval, ratio_interval
from edge_tts.bench.records import read_config
from edge_tts.core import Trace
from edge_tts.errors import InputError
from edge_tts.reasoning.arithmetic_check import false_equations
from edge_tts.search.selection import majority

WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(11))
SIZES = (3, 4, 6, 8, 12, 16)
"""Samples that vote."""


def is_doubted(trace: Trace) -> bool:
    return any(false_equations(step) for step in trace.steps)


def solved(problem: Problem, weight: float) -> float:
    """Share of the votes, over orders and sizes, that are right where a doubted sample counts ``weight``."""
    right = []
    for drawn in orders(problem):
        traces = [candidate.trace for candidate in drawn.usual]
        traces = [replace(trace, weight=weight) if trace.doubts else trace for trace in traces]
        for size in (size for size in SIZES if size <= len(traces)):
            best = majority(traces[:size]).best
            right.append(best is not None and best.answer in problem.right)
    return float(np.mean(right))


def marked(problem: Problem) -> Problem:
    """``problem`` with its doubted samples marked."""
    usual = tuple(
        replace(candidate, trace=replace(candidate.trace, doubts=("doubted",) if is_doubted(candidate.trace) else ()))
        for candidate in problem.usual
    )
    return replace(problem, usual=usual)


def chosen(by_weight: dict[float, list[float]], problems: Sequence[int]) -> float:
    """The weight that solves most of ``problems``; of equals the largest."""
    return max(by_weight, key=lambda weight: (round(sum(by_weight[weight][i] for i in problems), 9), weight))


def fit(problems: Sequence[Problem]) -> dict[str, Any]:
    """The weight, what it gains on problems it was not chosen on, and how right doubted samples are."""
    problems = [marked(problem) for problem in problems]
    by_weight = {weight: [solved(problem, weight) for problem in problems] for weight in WEIGHTS}
    evens, odds = list(range(0, len(problems), 2)), list(range(1, len(problems), 2))
    held_out = {
        i: by_weight[weight][i] - by_weight[1.0][i]
        for chosen_on, measured_on in ((evens, odds), (odds, evens))
        for weight in (chosen(by_weight, chosen_on),)
        for i in measured_on
    }
    weight = chosen(by_weight, range(len(problems)))
    return {
        "weight": weight,
        "problems": len(problems),
        "samples": sum(len(problem.usual) for problem in problems),
        "votes_of": list(SIZES),
        "solved": {str(w): asdict(mean_interval(found)) for w, found in by_weight.items()},
        "gain_over_1": {
            str(w): asdict(mean_interval(np.subtract(found, by_weight[1.0]))) for w, found in by_weight.items() if w < 1
        },
        "gain_held_out": asdict(mean_interval([held_out[i] for i in sorted(held_out)])),
        "right": {"doubted": _right(problems, True), "not_doubted": _right(problems, False)},
    }


def _right(problems: Sequence[Problem], doubted: bool) -> dict[str, Any]:
    """Answered samples that are doubted, or are not: how many, and which share of them is right."""
    counts = []
    for problem in problems:
        answered = [candidate.trace for candidate in problem.usual if candidate.trace.answer is not None]
        mine = [trace for trace in answered if bool(trace.doubts) == doubted]
        counts.append((sum(trace.answer in problem.right for trace in mine), len(mine)))
    with_some = [count for count in counts if count[1]]
    share = asdict(ratio_interval(*zip(*with_some, strict=True))) if with_some else None
    return {"samples": sum(count for _, count in counts), "problems": len(with_some), "share": share}


@click.command()
@click.argument("study", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(study: Path, out: Path) -> None:
    """Fit the weight on STUDY, whose samples are texts."""
    config = read_config(study)
    if config.get("reasoning_format") != "text":
        raise InputError(f"{study} has samples in the format {config.get('reasoning_format')}; give one of texts")
    problems = read(study)
    record = {"study": study.name, "model": config["pack"], "data": config["data"], **fit(problems)}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
