"""What running programs costs a search beside decoding: the interpreter, candidates that end early, and bookkeeping.

    python -m edge_tts.bench.runtime_programs --model NAME_OR_GGUF --data FILE --first 20 --out records/programs.json

Every problem gets a vote of programs, all drawn together. What is measured is processor time: of the thread that
searches and of the process that runs the programs, as a share of all. On an idle machine their share of the wall time
is smaller, since they work while the engine does; processor time is the same on a busy one. Tokens that a candidate got
after it had ended, since the engine was told later, are counted as well.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psutil

from edge_tts.bench import machine
from edge_tts.bench.intervals import ratio_interval
from edge_tts.bench.pool import Recorder
from edge_tts.core import Budget
from edge_tts.events import StepTaken
from edge_tts.questions.reading import read_questions
from edge_tts.solver import Solver

WARM_UP = "A box holds 12 pens. How many pens are in 3 boxes?"
"""Asked first: it loads what is loaded late, and waits for what all prompts begin with."""


def measure(solver: Solver, questions: Sequence[str], width: int) -> dict[str, Any]:
    """Shares of processor time and tokens over votes of ``width`` programs for each of ``questions``."""
    _vote(solver, WARM_UP, width, 0)
    rows = []
    for number, question in enumerate(questions):
        rows.append(_vote(solver, question, width, number))
        print(f"{number + 1} of {len(questions)}: {rows[-1]}", file=sys.stderr)

    def share(part: str, whole: str) -> dict[str, float]:
        found = ratio_interval([row[part] for row in rows], [row[whole] for row in rows])
        return {"share": found.value, "low": found.low, "high": found.high}

    return {
        "problems": len(rows),
        "width": width,
        "processor_seconds": round(sum(row["all"] for row in rows), 1),
        "wall_seconds": round(sum(row["wall"] for row in rows), 1),
        "programs_ended_by_an_error": sum(row["failed"] for row in rows),
        "search_and_interpreter": share("beside", "all"),
        "interpreter_process": share("interpreter", "all"),
        "tokens_after_the_end": share("late tokens", "tokens"),
    }


def _vote(solver: Solver, question: str, width: int, seed: int) -> dict[str, float]:
    """Processor seconds of one vote and where they went, its tokens, and how many programs failed."""
    engine, recorder = solver.policy, Recorder(solver.policy)
    solver.policy = recorder
    failed: set[int] = set()
    process, search, interpreter, wall = time.process_time(), time.thread_time(), _of_workers(), time.monotonic()
    for event in solver.stream(question, "majority", Budget(generations=width), seed, format="program"):
        if isinstance(event, StepTaken) and event.error:
            failed.add(event.candidate)
    process, search = time.process_time() - process, time.thread_time() - search
    interpreter, wall = _of_workers() - interpreter, time.monotonic() - wall
    solver.policy = engine
    steps = [step for events in recorder.events for step in events]
    return {
        "wall": wall,
        "all": process + interpreter,
        "beside": search + interpreter,
        "interpreter": interpreter,
        "tokens": sum(len(step.tokens) for step in steps),
        "late tokens": sum(len(step.tokens) for step in steps if step.stop == "cancelled"),
        "failed": len(failed),
    }


def _of_workers() -> float:
    """Processor seconds of the processes that run programs."""
    times = [child.cpu_times() for child in psutil.Process().children() if child.name().startswith("monty")]
    return float(sum(each.user + each.system for each in times))


@click.command()
@click.option("--model", required=True, help="GGUF, catalogue name or hub id.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--first", type=click.IntRange(1), default=20, show_default=True)
@click.option("--width", type=click.IntRange(1), default=16, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file; other models' records stay.")
def main(model: str, data: Path, first: int, width: int, out: Path) -> None:
    """Measure and write a record."""
    questions = [question.question for question in read_questions(data)[:first]]
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    with Solver(model=model, memory_mb=4096, deadline_s=3600, generations=width) as solver:
        record[solver.pack.title] = {"made_on": machine.describe(), **measure(solver, questions, width)}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
