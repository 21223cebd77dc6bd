"""``edge-reason solve``: answer a question, a file of questions, or standard input."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.asking import Asking, Loading
from edge_tts.commands.options import (
    asking_options,
    escalation_options,
    model_options,
    overlaid,
    parse_budget,
    sampling_options,
)
from edge_tts.errors import NO_ANSWER, NOT_SURE, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.events import Result
    from edge_tts.questions.recording import Recording
    from edge_tts.reasoning.question_kind import AnswerKind
    from edge_tts.search.call import Format
    from edge_tts.solver import Solver

LOADING = ("model", "pack", "profile", "memory", "deadline")
KINDS = ("math", "choice", "yes-no", "text")


@dataclass(frozen=True)
class _Showing:
    """What is done with the result of one question."""

    save: Path | None
    as_json: bool
    verbose: bool


@click.command()
@click.argument("question", nargs=-1)
@click.option("--file", "file", type=click.Path(path_type=Path), help="JSON lines with a question each.")
@click.option("--out", type=click.Path(path_type=Path), help="Where results of --file go; the same command resumes.")
@asking_options
@model_options
@escalation_options
@click.option("--answer", "kind", type=click.Choice(KINDS), default=None, help="Kind of answer wanted.")
@sampling_options
@click.option("--calculator/--no-calculator", default=True, help="Let the runtime write results of equations.")
@click.option(
    "--budget-total", "total", default=None, help="What all questions of --file may cost together, such as 50000tok."
)
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Questions of --file under way at once.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the whole search to this file, for `why`.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show votes, candidates and budget while it works.")
def command(
    question: tuple[str, ...],
    file: Path | None,
    out: Path | None,
    strategy: str,
    budget: str | None,
    kind: AnswerKind | None,
    format: Format,
    explain: bool,
    seed: int,
    calculator: bool,
    total: str | None,
    parallel: int | None,
    least: float | None,
    save: Path | None,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Answer QUESTION (or standard input, or the questions of --file).

    Exit code 6 where no answer was found, 7 where a confidence is below --min-confidence, 8 where questions of
    --file failed.
    """
    from edge_tts.commands.console import consoles
    from edge_tts.commands.question_file import answer_file, prompt_tokens
    from edge_tts.commands.total_budget import checked_total
    from edge_tts.core import Budget, Sampling

    # What is wrong with the options is said before anything is loaded.
    model = {name: others.pop(name) for name in (*LOADING, "escalate", "below", "prices")}
    if total is not None and file is None:
        raise InputError("--budget-total is what the questions of --file share; for one question there is --budget")
    shared = checked_total(parse_budget(total), strategy, model["deadline"], model["escalate"]) if total else None
    limits = parse_budget(budget) if budget else Budget()
    asking = Asking(strategy, limits, seed, kind, format, others, explain, shared, least)
    overlaid(Sampling(), others)
    showing = _Showing(save, as_json, verbose)
    loading = Loading(**model, calculator=calculator)
    output, errors = consoles()
    if file is not None:
        if question or out is None:
            raise InputError("--file needs --out, and no QUESTION beside it")
        if save is not None:
            raise InputError("--save goes with one question; --out has the results of --file")
        code = answer_file(file, out, asking, loading, parallel, errors)
    else:
        text = _question(question, out, save)
        with replace(loading, prompt_tokens=prompt_tokens(text)).open(asking, errors) as solver:
            code = _answer(solver, text, asking, showing, (output, errors))
    if code:
        click.get_current_context().exit(code)


def _question(question: tuple[str, ...], out: Path | None, save: Path | None) -> str:
    """The question to answer. Raises InputError for one that cannot be asked, and for options that do not fit."""
    from edge_tts.questions.reading import checked_question

    if out is not None:
        raise InputError("--out goes with --file; without it the result is printed")
    if save is not None and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise InputError(f"--save {save} is no file in a folder that is there; name one")
    return checked_question(" ".join(question) if question else _standard_input())


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise InputError('no question; give one: edge-reason solve "What is 3 times 14?"')
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start}); convert it first") from error


def _answer(solver: Solver, question: str, asking: Asking, showing: _Showing, consoles: tuple[Console, Console]) -> int:
    """Answer ``question`` and show how it went; gives the exit code."""
    from edge_tts.commands.console import json_line
    from edge_tts.commands.summary import print_answer, print_cost, print_thinking
    from edge_tts.questions.recording import Recording

    output, errors = consoles
    recording = Recording()
    result = _searched(solver, question, asking, recording, showing.verbose, consoles)
    least = asking.least or 0.0
    if showing.as_json:
        click.echo(json_line(result.to_dict()))
    else:
        if showing.verbose:
            print_thinking(errors, result)
        print_answer(output, errors, result, least, recording.attempts)
        print_cost(errors, result, len(recording.attempts), solver.pack.title, showing.verbose)
    if showing.save is not None:
        from edge_tts.questions.saved_search import SavedSearch, save

        save(SavedSearch.of(question, asking.settings(solver), recording, result), showing.save)
    if result.answer is None:
        return NO_ANSWER
    return NOT_SURE if result.confidence < least else 0


def _searched(
    solver: Solver,
    question: str,
    asking: Asking,
    recording: Recording,
    verbose: bool,
    consoles: tuple[Console, Console],
) -> Result:
    """The result; on Ctrl-C what there is so far is printed first."""
    from edge_tts.commands.summary import print_so_far
    from edge_tts.commands.watching import watching
    from edge_tts.events import Done

    output, errors = consoles
    events = solver.stream(question, asking.strategy, asking.limits, asking.seed, **asking.options(solver))
    if verbose:
        errors.print(solver.plan.summary(), style="dim", soft_wrap=not errors.is_terminal)
    try:
        with watching(solver, asking, recording, errors, verbose) as show:
            for event in events:
                if isinstance(event, Done):
                    return event.result
                show(event)
    except KeyboardInterrupt:
        events.close()
        print_so_far(output, errors, recording)
        raise
    raise AssertionError("a stream ends with Done")
