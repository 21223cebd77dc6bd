"""``edge-reason solve``: answer a question, a file of questions, or standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edge_tts.core import Budget, Result
    from edge_tts.questions.reading import Question
    from edge_tts.solver import Solver

_UNITS = {"": "generations", "tok": "tokens", "flop": "flops", "j": "joules"}


@click.command()
@click.argument("question", required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="JSON lines with a question each.")
@click.option("--out", type=click.Path(path_type=Path), help="Where results of --file go; the same command resumes.")
@click.option("--strategy", default="auto", show_default=True, help="auto, or for example beam:m=4 or revise:s=4.")
@click.option("--budget", default=None, help="Most generations (16), tokens (2000tok), FLOPs (1e12flop), joules (30j).")
@click.option("--deadline", type=float, default=None, help="Seconds a question may take, once the models are loaded.")
@click.option("--memory", type=float, default=None, help="Memory cap in MB.")
@click.option("--profile", default=None, help="Device profile, by name or file; detected by default.")
@click.option("--pack", default=None, help="Pack, by name or folder.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--calculator/--no-calculator", default=True, help="Let the runtime write results of equations.")
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Questions of --file under way at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show candidates, scores and budget while it works.")
def command(
    question: str | None,
    file: Path | None,
    out: Path | None,
    strategy: str,
    budget: str | None,
    deadline: float | None,
    memory: float | None,
    profile: str | None,
    pack: str | None,
    seed: int,
    calculator: bool,
    parallel: int | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Answer QUESTION (or standard input, or the questions of --file)."""
    from rich.console import Console

    from edge_tts.core import Budget
    from edge_tts.questions.reading import Question, read_questions
    from edge_tts.solver import uses_verifier

    limits = parse_budget(budget) if budget else Budget()
    scores = uses_verifier(strategy)  # a typing error is reported before anything is loaded
    errors = Console(stderr=True)
    if file is not None:
        if question is not None or out is None:
            raise InputError("--file needs --out, and no QUESTION beside it")
        questions = read_questions(file)
    elif out is not None:
        raise InputError("--out goes with --file; without it the result is printed")
    else:
        questions = [Question("1", question if question is not None else _standard_input(), None)]
    solver = _solver(questions, limits, deadline, memory, profile, pack, calculator, scores, errors)
    with solver:
        if file is not None and out is not None:
            if deadline is None:
                solver.deadline_s = None  # a file asks for throughput, not for latency
            _solve_file(solver, questions, out, strategy, limits, seed, calculator, parallel, errors)
            return
        result = _solve_one(solver, questions[0].question, strategy, limits, seed, verbose, errors)
    _print(result, as_json)


def parse_budget(text: str) -> Budget:
    """Read "16", "2000tok", "1e12flop" or "30j". Raises InputError."""
    from edge_tts.core import Budget

    number = text.strip().lower()
    unit = next((u for u in ("tok", "flop", "j") if number.endswith(u)), "")
    try:
        value = float(number.removesuffix(unit))
    except ValueError:
        value = float("nan")
    if not 0 < value < 1e30 or (unit in ("", "tok") and value != int(value)):
        raise InputError(f"the budget {text!r} is none; give for example 16, 2000tok, 1e12flop or 30j")
    kind = _UNITS[unit]
    return Budget(**{kind: int(value) if kind in ("generations", "tokens") else value})  # type: ignore[arg-type]


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise InputError('no question; give one: edge-reason solve "What is 3 times 14?"')
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start}); convert it first") from error


def _solver(
    questions: Sequence[Question],
    limits: Budget,
    deadline: float | None,
    memory: float | None,
    profile: str | None,
    pack: str | None,
    calculator: bool,
    scores: bool,
    errors: Console,
) -> Solver:
    from edge_tts.questions.reading import checked_question
    from edge_tts.solver import DEFAULT_GENERATIONS, Solver

    longest = max(len(checked_question(q.question).encode("utf-8", errors="replace")) for q in questions)
    with progress_bar(errors) as progress:
        return Solver(
            pack,
            profile,
            memory,
            deadline,
            generations=limits.generations or DEFAULT_GENERATIONS,
            # Digits are a token each, words about four bytes; three bytes a token is on the safe side.
            prompt_tokens=longest // 3 + 16,
            calculator=calculator,
            verifier=scores,
            progress=progress,
        )


def _solve_one(
    solver: Solver, question: str, strategy: str, limits: Budget, seed: int, verbose: bool, errors: Console
) -> Result:
    if not verbose:
        return solver.solve(question, strategy, limits, seed)
    from edge_tts.commands.live import LiveView
    from edge_tts.core import Done

    errors.print(f"[dim]{solver.plan.summary()}[/dim]", highlight=False)
    with LiveView(errors) as view:
        for event in solver.stream(question, strategy, limits, seed):
            if isinstance(event, Done):
                return event.result
            view.show(event)
    raise AssertionError("a stream ends with Done")


def _solve_file(
    solver: Solver,
    questions: Sequence[Question],
    out: Path,
    strategy: str,
    limits: Budget,
    seed: int,
    calculator: bool,
    parallel: int | None,
    errors: Console,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_tts.files.json_lines import Appender
    from edge_tts.questions.results import Settings, finished_ids, result_row
    from edge_tts.solver import solve_all

    settings = Settings(strategy, limits, seed, f"{solver.pack.name} {solver.pack.version}", calculator)
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
        for question, result in solve_all(solver, todo, settings, parallel or min(default, 8)):
            content = result_row(question, result, settings)
            sink.add([content])
            graded += "correct" in content
            right += content.get("correct", False)
            bar.update(task, advance=1, description=f"{right} of {graded} right" if graded else "solving")


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
        return
    usage: Any = result.usage
    for step in result.steps:
        click.echo(step)
    click.echo(f"answer: {result.answer}" if result.finished else f"nothing finished ({result.stop_reason})")
    hard = f"difficulty {result.difficulty.bin + 1} of 5, " if result.difficulty else ""
    click.echo(
        f"{result.strategy} ({result.reason}), {hard}stopped: {result.stop_reason}, {usage.seconds:.2f} s, "
        f"{usage.policy_tokens} policy + {usage.verifier_tokens} verifier tokens, {usage.peak_memory_mb:.0f} MB",
        err=True,
    )
