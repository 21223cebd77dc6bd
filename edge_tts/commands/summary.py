"""The end of ``solve``: the solution, how sure its answer is, why the search stopped, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_tts.commands.console import answer_line, harmless, one_line
from edge_tts.search.wording import cost, escalated, in_format, percent, why_stopped

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.events import Result
    from edge_tts.questions.recording import Attempt, Recording


def print_answer(
    out: Console, errors: Console, result: Result, least: float = 0.0, attempts: Sequence[Attempt] = ()
) -> None:
    """The solution and its answer; where the confidence is below ``least`` in [0, 1], the answers and their votes.

    Without an answer: the longest of the ``attempts``, and why those that did ended on the way.
    """
    if result.answer is None:
        if result.partial:
            print_text(out, "\n".join(result.partial))
        longest = "; above is the longest" if result.partial else ""
        errors.print(f"no answer: no sample reached one{longest}", style="yellow")
        if failed := [attempt.error for attempt in attempts if attempt.error]:
            ended = f"{len(failed)} of {len(attempts)} samples ended on the way"
            errors.print(f"{ended}; the last: {one_line(failed[-1])}", style="yellow", soft_wrap=True)
    elif result.confidence < least:
        print_unsure(out, errors, result, least)
    else:
        print_solution(out, result)
        out.print(answer_line("answer", result.answer, result.confidence), soft_wrap=True)


def print_unsure(out: Console, errors: Console, result: Result, least: float) -> None:
    """That the confidence is below ``least`` in [0, 1], with the answers and their votes."""
    from rich.text import Text

    out.print("not sure", style="yellow")
    for answer, share in result.votes:
        out.print(Text(f"  {one_line(answer)}: {percent(share)} of the vote"), soft_wrap=True)
    errors.print(f"confidence {percent(result.confidence)} is below the {percent(least)} asked for", soft_wrap=True)


def print_notes(errors: Console, result: Result) -> None:
    """What there is to know about how it was answered, and that a larger model was asked."""
    for note in result.notes:
        errors.print(f"note: {one_line(note)}", soft_wrap=True)
    if result.escalation:
        errors.print(f"note: {one_line(escalated(result.escalation))}", soft_wrap=True)


def print_so_far(out: Console, errors: Console, recording: Recording) -> None:
    """What an interrupted search leaves: its best answer; without one the attempt with most text."""
    if best := recording.best:
        out.print(answer_line("answer so far", best.answer, recording.confidence), soft_wrap=True)
        return
    longest = max(("\n".join(attempt.steps) for attempt in recording.attempts), key=len, default="")
    if longest.strip():
        print_text(out, longest)
        errors.print("no answer yet; above is the longest attempt so far", style="yellow")


def print_solution(out: Console, result: Result) -> None:
    """The steps of the chosen solution, and the explanation where one was asked for."""
    print_text(out, "\n".join(result.steps))
    if result.explanation:
        print_text(out, result.explanation)


def print_thinking(errors: Console, result: Result) -> None:
    """What the chosen text says between ``<think>`` and ``</think>``, dimmed; nothing where it says nothing there."""
    from rich.text import Text

    from edge_tts.reasoning.thinking import split_thinking

    if thinking := split_thinking(result.text).thinking:
        errors.print(Text(harmless(thinking), "dim"), soft_wrap=True)


def print_text(out: Console, text: str) -> None:
    """``text`` of a model as it is, save control characters."""
    from rich.text import Text

    out.print(Text(harmless(text)), soft_wrap=True)


def print_cost(errors: Console, result: Result, candidates: int, model: str, verbose: bool = False) -> None:
    """Why the search stopped, what it took, and what answered, each on a line; with ``verbose`` the details."""
    print_notes(errors, result)
    errors.print(f"stopped because {why_stopped(result.stop_reason)}", style="dim", soft_wrap=True)
    errors.print(cost(result.usage, candidates, result.strategy), style="dim", soft_wrap=True)
    errors.print(", ".join(filter(None, (model, in_format(result.format)))), style="dim", soft_wrap=True)
    if verbose:
        usage = result.usage
        hard = f"difficulty {result.difficulty.bin + 1} of 5, " if result.difficulty else ""
        errors.print(
            f"{result.strategy} ({result.reason}), {hard}{usage.policy_tokens} policy + {usage.verifier_tokens} "
            f"verifier tokens, {usage.peak_memory_mb:.0f} MB, seed {result.seed}",
            style="dim",
            soft_wrap=True,
        )
