"""``solve --file --budget-total``: one budget for all questions of a file, spent where more samples help most.

Every question gets the first wave of its samples. After that the controller's expected gain says whose turn it is, wave
by wave, until the total is spent (Zuo & Zhu 2025, arXiv 2506.12721, spread compute over questions likewise).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from edge_tts.core import Budget, Usage
from edge_tts.errors import InputError
from edge_tts.events import Decided, Done, Event, Result
from edge_tts.questions.reading import Question
from edge_tts.questions.results import Settings
from edge_tts.search.call import AUTO, Options
from edge_tts.search.concurrency import together
from edge_tts.search.ledger import SharedBudget
from edge_tts.solver import Solver

STRATEGIES = (AUTO, "adaptive")
"""Those that decide after every wave whether to go on."""

Found = tuple[Question, Result | Exception]


@dataclass(eq=False)
class _Search:
    """The search of one question, which rests after a wave."""

    question: Question
    events: Generator[Event | Done, None, None]
    gain: float = 1.0
    """Expected rise of the confidence by more samples."""
    found: Result | Exception | None = None
    """None while it may go on."""


def checked_total(total: Budget, strategy: str, deadline: float | None, escalate: str | None) -> Budget:
    """``total`` where questions can share it. Raises InputError where they cannot."""
    if total.joules is not None:
        raise InputError(
            "--budget-total is in generations, tokens (20000tok) or FLOPs (1e14flop); joules are not split"
        )
    if strategy.partition(":")[0].strip() not in STRATEGIES:
        raise InputError(
            f"--budget-total needs a strategy that decides after every wave: auto or adaptive; got {strategy!r}"
        )
    if deadline is not None or escalate is not None:
        raise InputError(
            "--budget-total lets questions wait for each other, so it goes with neither --deadline nor --escalate"
        )
    return total


def solve_within(
    solver: Solver,
    questions: Sequence[Question],
    settings: Settings,
    total: Budget,
    spent: Usage,
    parallel: int,
    **options: Unpack[Options],
) -> Iterator[Found]:
    """Solve ``questions`` within ``total``, of which ``spent`` is gone; yields them as they finish.

    ``parallel`` questions share a batch, and each adds at most one wave after the total is spent. Where a question
    cannot be solved, or the total is spent before its turn, the exception stands for its result. The same seed and
    ``parallel`` spend the total alike. Closing the iterator cancels the questions under way.
    """
    options["shared"] = shared = SharedBudget(spent)

    def begun(question: Question) -> _Search:
        own = (settings.strategy, settings.budget, settings.seed)
        return _Search(question, solver.stream(question.question, *own, **options))

    resting: list[_Search] = []
    try:
        for first in range(0, len(questions), parallel):
            if is_spent(total, shared.spent):
                error = InputError("the total was spent before this question's turn; give a larger --budget-total")
                yield from ((question, error) for question in questions[first:])
                break
            resting += [begun(question) for question in questions[first : first + parallel]]
            yield from _advanced(resting, resting[-parallel:])
        while resting and not is_spent(total, shared.spent):
            yield from _advanced(resting, sorted(resting, key=lambda search: -search.gain)[:parallel])
        shared.closed = True
        while resting:
            yield from _advanced(resting, resting[:parallel])
    finally:
        for search in resting:
            search.events.close()


def is_spent(total: Budget, spent: Usage) -> bool:
    """Whether ``spent`` reaches ``total``."""
    flops = spent.policy_flops + spent.verifier_flops
    pairs = ((total.generations, spent.generations), (total.tokens, spent.policy_tokens), (total.flops, flops))
    return any(most is not None and used >= most for most, used in pairs)


def _advanced(resting: list[_Search], chosen: Sequence[_Search]) -> Iterator[Found]:
    """Let ``chosen`` go on to their next rests; gives those that end, which are taken out of ``resting``."""
    for search in together(tuple(chosen), _advance, len(chosen)):
        if search.found is not None:
            resting.remove(search)
            yield search.question, search.found


def _advance(search: _Search, stopped: Callable[[], bool]) -> _Search | None:
    try:
        for event in search.events:
            if stopped():
                return None
            if isinstance(event, Done):
                search.found = event.result
                return search
            if isinstance(event, Decided) and event.action != "stop":
                search.gain = event.gain
                return search
    except Exception as error:
        search.found = error
    return search
