"""``edge-reason solve --file``: a file of questions, and a file of results that resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.questions.reading import Question
    from edge_tts.questions.results import Settings
    from edge_tts.search.call import Options
    from edge_tts.solver import Solver


def solve_file(
    solver: Solver,
    questions: Sequence[Question],
    out: Path,
    settings: Settings,
    options: Options,
    parallel: int | None,
    errors: Console,
) -> None:
    """Solve the ``questions`` that ``out`` has no result of, and add theirs to it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_tts.files.json_lines import Appender
    from edge_tts.questions.results import finished_ids, result_row
    from edge_tts.solver import solve_all

    done = finished_ids(out, settings)
    todo = [q for q in questions if q.id not in done]
    if done:
        errors.print(f"{len(done)} of {len(questions)} are in {out} already")
    # A deadline is a promise to each question, so by default they do not share the machine then.
    default = 1 if solver.deadline_s else max(2, 2 * solver.policy.width // solver.plan.generations)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    right = graded = 0
    with Appender(out) as sink, Progress(*columns, console=errors) as bar:
        task = bar.add_task("solving", total=len(questions), completed=len(done))
        for question, result in solve_all(solver, todo, settings, parallel or min(default, 8), **options):
            content = result_row(question, result, settings)
            sink.add([content])
            graded += "correct" in content
            right += content.get("correct", False)
            bar.update(task, advance=1, description=f"{right} of {graded} right" if graded else "solving")
