"""``edge-reason solve --file``: a file of questions, and a file of results that resumes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tts.errors import NOT_SURE, InputError, ResourceError

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.commands.asking import Asking, Loading
    from edge_tts.core import Budget
    from edge_tts.questions.lines import Line
    from edge_tts.questions.results import Settings
    from edge_tts.questions.results_file import Tally
    from edge_tts.search.call import Options
    from edge_tts.solver import Solver

ROWS_FAILED = 8
"""Exit code where results were written, but some questions have an error in place of one."""
SHOWN = 3
"""Most failures whose reason is printed; all are in the file."""
MOST_PARALLEL = 8


def answer_file(file: Path, out: Path, asking: Asking, loading: Loading, parallel: int | None, errors: Console) -> int:
    """Answer the questions of ``file`` that ``out`` has no result of, and add theirs to it; gives the exit code.

    Raises InputError where one of the files cannot be used, and what loading raises.
    """
    from edge_tts.questions.lines import question_lines
    from edge_tts.questions.results_file import check_out
    from edge_tts.search.call import AUTO

    lines = question_lines(file)
    check_out(out, file)
    questions = [line.question.question for line in lines if line.question is not None]
    with open_solver(questions, asking, loading, errors) as solver:
        if loading.deadline is None:
            solver.deadline_s = None  # a file asks for throughput, not for latency
        searches = solver.table is not None and not solver.table.only_votes
        if asking.total is not None and asking.strategy == AUTO and searches:
            raise InputError(
                f"the table of {solver.pack.title} names searches that run as a whole, so questions cannot share a "
                "total; take --strategy adaptive"
            )
        settings, options = asking.settings(solver), asking.options(solver)
        return solve_lines(solver, lines, out, settings, options, parallel, errors, asking.total)


def open_solver(questions: Iterable[str], asking: Asking, loading: Loading, errors: Console) -> Solver:
    """A solver with room for the longest of ``questions`` that this device has room for.

    Longer ones fail by themselves when they are asked. Raises what loading raises for the shortest question.
    """
    loadings = [replace(loading, prompt_tokens=size) for size in sorted({prompt_tokens(q) for q in questions})]
    try:
        return loadings[-1].open(asking, errors)
    except (InputError, ResourceError):
        fitting = bisect_left(loadings, True, key=lambda loading: not _fits(loading, asking))
        if fitting in (0, len(loadings)):  # the length of questions is not what is wrong
            raise
    return loadings[fitting - 1].open(asking, errors)


def prompt_tokens(question: str) -> int:
    """Most tokens of ``question``: digits are one each, words about four bytes; three bytes are on the safe side."""
    return len(question.strip().encode("utf-8", errors="replace")) // 3 + 16


def solve_lines(
    solver: Solver,
    lines: Sequence[Line],
    out: Path,
    settings: Settings,
    options: Options,
    parallel: int | None,
    errors: Console,
    total: Budget | None = None,
) -> int:
    """The same with a loaded solver and ``lines`` that were read; ``total`` is what all questions may cost.

    Lines that cannot be used, and questions that cannot be answered, get a row that says why.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_tts.commands.total_budget import solve_within
    from edge_tts.questions.results import failure_row, result_row
    from edge_tts.questions.results_file import ResultsFile
    from edge_tts.search.call import AUTO
    from edge_tts.search.controller import WAVE
    from edge_tts.solver import solve_all

    # A deadline is a promise to each question, so by default they do not share the machine then. Otherwise there are
    # questions enough to fill the batch: a controller draws a few samples of each at a time.
    wave = WAVE if settings.strategy in (AUTO, "adaptive") else solver.plan.generations
    default = 1 if solver.deadline_s else max(2, 2 * solver.policy.width // wave)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures = [line.error for line in lines if line.error]
    by_question = {line.question: line for line in lines if line.question is not None}
    with ResultsFile(out, lines, settings) as results:
        if results.done:
            errors.print(f"{len(results.done)} of {len(lines)} are in {out} already", markup=False)
        todo = [question for question in by_question if question.id not in results.done]
        with Progress(*columns, console=errors) as bar:
            task = bar.add_task("solving", total=len(lines), completed=len(lines) - len(todo))
            for line in lines:
                if line.error:
                    results.add(failure_row(line, line.error, settings))
            at_once = parallel or min(default, MOST_PARALLEL)
            answered = (
                solve_within(solver, todo, settings, total, results.spent, at_once, **options)
                if total
                else solve_all(solver, todo, settings, at_once, **options)
            )
            for question, found in answered:
                line = by_question[question]
                if isinstance(found, Exception):
                    row = failure_row(line, found, settings)
                    failures.append(f"line {line.number}: {row['error']}")
                else:
                    row = result_row(line, question, found, settings)
                results.add(row)
                bar.update(task, advance=1, description=_score(results.tally) or "solving")
        try:
            results.put_in_order()
        except ResourceError as error:
            errors.print(f"all rows are in {out}, in the order they were finished: {error}", markup=False)
        _summarise(results.tally, results.others, failures, out, errors)
    if failures:
        return ROWS_FAILED
    return NOT_SURE if results.tally.unsure else 0


def _fits(loading: Loading, asking: Asking) -> bool:
    try:
        loading.plan(asking)
    except (InputError, ResourceError):
        return False
    return True


def _score(tally: Tally) -> str:
    return f"{tally.right} of {tally.graded} right" if tally.graded else ""


def _summarise(tally: Tally, others: int, failures: Sequence[str], out: Path, errors: Console) -> None:
    from edge_tts.search.wording import money

    parts = [f"{tally.answered} answered", _score(tally)]
    parts += [f"{tally.unanswered} without an answer"] if tally.unanswered else []
    included = " (those without an answer included)" if tally.unanswered else ""
    parts += [f"{tally.unsure} not sure{included}"] if tally.unsure else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    said = [f"{', '.join(filter(None, parts))}; results are in {out}"]
    if tally.handed_over:
        price = f", price {money(tally.price)}" if tally.price else ""
        said.append(f"a larger model was also asked {tally.handed_over} of these questions{price}")
    said += [f"  {failure}" for failure in failures[:SHOWN]]
    said += [f"  and {len(failures) - SHOWN} more, each in the file"] if len(failures) > SHOWN else []
    said += [f"rows of other questions that {out} had and keeps: {others}"] if others else []
    for sentence in said:
        errors.print(sentence, markup=False, highlight=False, soft_wrap=True)
