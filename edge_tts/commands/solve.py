"""``edge-reason solve``: answer a question, a file of questions, or standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edge_tts.commands.options import model_options, overlaid, parse_budget, sampling_options
from edge_tts.commands.progress import progress_bar
from edge_tts.errors import NO_ANSWER, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.commands.live import LiveView
    from edge_tts.core import Budget, Result
    from edge_tts.questions.results import Settings
    from edge_tts.reasoning.question_kind import AnswerKind
    from edge_tts.search.call import Options
    from edge_tts.solver import Solver

KINDS = ("math", "choice", "yes-no", "text")


@dataclass(frozen=True)
class _Asking:
    """How every question of a run is asked."""

    strategy: str
    limits: Budget
    seed: int
    kind: AnswerKind | None
    format: Literal["auto", "text", "program"]
    sampling: Mapping[str, Any]
    """Settings that take the place of the model's own; None and () leave them."""

    def options(self, solver: Solver) -> Options:
        given = {name: value for name, value in self.sampling.items() if name != "max_tokens"}
        options: Options = {"kind": self.kind, "format": self.format, "max_tokens": self.sampling["max_tokens"]}
        if any(value not in (None, ()) for value in given.values()):
            options["sampling"] = overlaid(solver.pack.sampling, given)
        return options

    def settings(self, solver: Solver) -> Settings:
        from edge_tts.questions.results import Settings

        given = {name: value for name, value in self.sampling.items() if value not in (None, ())}
        how = (self.kind, self.format, given)
        return Settings(self.strategy, self.limits, self.seed, solver.pack.title, solver.calculator, *how)


@click.command()
@click.argument("question", nargs=-1)
@click.option("--file", "file", type=click.Path(path_type=Path), help="JSON lines with a question each.")
@click.option("--out", type=click.Path(path_type=Path), help="Where results of --file go; the same command resumes.")
@click.option("--strategy", default="auto", show_default=True, help="auto, or for example beam:m=4 or revise:s=4.")
@click.option("--budget", default=None, help="Most generations (16), tokens (2000tok), FLOPs (1e12flop), joules (30j).")
@model_options
@click.option("--answer", "kind", type=click.Choice(KINDS), default=None, help="Kind of answer wanted.")
@click.option(
    "--format",
    type=click.Choice(("auto", "text", "program")),
    default="auto",
    show_default=True,
    help="In words, or as a program that is run; auto: programs for computations, if the model is good at them.",
)
@sampling_options
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--calculator/--no-calculator", default=True, help="Let the runtime write results of equations.")
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Questions of --file under way at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show candidates, scores and budget while it works.")
def command(
    question: tuple[str, ...],
    file: Path | None,
    out: Path | None,
    strategy: str,
    budget: str | None,
    model: str | None,
    pack: str | None,
    profile: str | None,
    memory: float | None,
    deadline: float | None,
    kind: AnswerKind | None,
    format: Literal["auto", "text", "program"],
    seed: int,
    calculator: bool,
    parallel: int | None,
    as_json: bool,
    verbose: bool,
    **sampling: Any,
) -> None:
    """Answer QUESTION (or standard input, or the questions of --file).

    Exit code 6 where no answer was found.
    """
    from rich.console import Console

    from edge_tts.commands.question_file import solve_file
    from edge_tts.core import Budget, Sampling
    from edge_tts.questions.reading import Question, checked_question, read_questions
    from edge_tts.solver import DEFAULT_GENERATIONS, Solver, uses_verifier

    # What is wrong with the options is said before anything is loaded.
    limits = parse_budget(budget) if budget else Budget()
    scores = uses_verifier(strategy)
    overlaid(Sampling(), sampling)
    asking = _Asking(strategy, limits, seed, kind, format, sampling)
    errors = Console(stderr=True)
    if file is not None:
        if question or out is None:
            raise InputError("--file needs --out, and no QUESTION beside it")
        questions = read_questions(file)
    elif out is not None:
        raise InputError("--out goes with --file; without it the result is printed")
    else:
        questions = [Question("1", " ".join(question) if question else _standard_input(), None)]
    longest = max(len(checked_question(q.question).encode("utf-8", errors="replace")) for q in questions)
    with progress_bar(errors) as progress:
        solver = Solver(
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
            model=model,
            max_tokens=sampling["max_tokens"],
        )
    if solver.choice:
        errors.print(f"[dim]{solver.pack.title}: {solver.choice}; --model chooses another[/dim]", highlight=False)
    with solver:
        if file is not None and out is not None:
            if deadline is None:
                solver.deadline_s = None  # a file asks for throughput, not for latency
            options = asking.options(solver)
            solve_file(solver, questions, out, asking.settings(solver), options, parallel, errors)
            return
        result = _solve_one(solver, questions[0].question, asking, verbose, errors)
    _print(result, as_json)
    if result.answer is None:
        click.get_current_context().exit(NO_ANSWER)


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise InputError('no question; give one: edge-reason solve "What is 3 times 14?"')
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start}); convert it first") from error


def _solve_one(solver: Solver, question: str, asking: _Asking, verbose: bool, errors: Console) -> Result:
    """The result; on Ctrl-C the best answer so far is printed first."""
    from edge_tts.core import BestSoFar, Done

    best: BestSoFar | None = None
    events = solver.stream(question, asking.strategy, asking.limits, asking.seed, **asking.options(solver))
    try:
        with _view(solver, errors) if verbose else nullcontext() as view:
            for event in events:
                if isinstance(event, Done):
                    return event.result
                if isinstance(event, BestSoFar):
                    best = event
                if view is not None:
                    view.show(event)
    except KeyboardInterrupt:
        events.close()
        if best:
            click.echo(f"answer so far: {best.answer}")
        raise
    raise AssertionError("a stream ends with Done")


def _view(solver: Solver, errors: Console) -> LiveView:
    from edge_tts.commands.live import LiveView

    errors.print(f"[dim]{solver.plan.summary()}[/dim]", highlight=False)
    return LiveView(errors)


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
        return
    usage = result.usage
    click.echo("\n".join(result.steps or result.partial))
    if result.answer is not None:
        click.echo(f"answer: {result.answer}")
    else:
        click.echo(f"no answer ({result.stop_reason}): no sample finished; above is the longest", err=True)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    hard = f"difficulty {result.difficulty.bin + 1} of 5, " if result.difficulty else ""
    click.echo(
        f"{result.strategy} ({result.reason}), {hard}stopped: {result.stop_reason}, {usage.seconds:.2f} s, "
        f"{usage.policy_tokens} policy + {usage.verifier_tokens} verifier tokens, {usage.peak_memory_mb:.0f} MB",
        err=True,
    )
