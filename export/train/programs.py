"""Programs in the rows of rollouts: right ones to learn from, wrong ones that a revision begins with."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from edge_tts.errors import InputError
from edge_tts.export.trace_rows import Row
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT

NOTHING = "(nothing)"
"""The step of a row whose sample wrote nothing."""
_REMARK = re.compile(r"  # [^#\n]*$")
"""The values that a row shows beside a line of a program."""


def written(row: Row) -> str:
    """The program of ``row`` as the model wrote it, without the values that the row shows."""
    return "\n".join(_REMARK.sub("", line) for line in row.steps)


def right_programs(rows: Sequence[Row], most: int, seed: int) -> list[tuple[Row, str]]:
    """Rows with a right program, and the program: distinct ones, at most ``most`` for each problem, drawn at random.

    What is trained on still runs without the values that a row shows. Raises InputError where there are none.
    """
    found: dict[tuple[str, str], dict[str, Row]] = {}
    with Interpreter() as interpreter:
        for row in rows:
            if row.correct and not interpreter.run((program := written(row)).split("\n")).error:
                found.setdefault((row.id, row.question), {}).setdefault(program, row)
    if not found:
        raise InputError("none of the traces is a right program; sample with train.rollouts --format program")
    rng = random.Random(seed)
    return [
        (programs[program], program)
        for programs in found.values()
        for program in rng.sample(list(programs), min(most, len(programs)))
    ]


def wrong_programs(rows: Sequence[Row]) -> Mapping[str, tuple[str, ...]]:
    """Distinct programs without a right answer, by problem id; those that end in an error are among them."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row.correct is False and row.steps != (NOTHING,):
            found[row.id][written(row)] = None
    return {id: tuple(programs) for id, programs in found.items()}


def attempts(known: Sequence[str], rng: random.Random, right: str | None = None) -> list[str]:
    """One to four of ``known`` wrong programs, drawn at random; last one of the three nearest to ``right``, if given.

    As for equations, :mod:`edge_tts.export.train.examples`.
    """
    drawn = rng.sample(known, min(len(known), rng.randint(1, ATTEMPTS_IN_CONTEXT)))
    if right is None or not drawn:
        return drawn
    nearest = sorted(known, key=lambda text: -SequenceMatcher(None, text, right).ratio())[:3]
    last = rng.choice(nearest)
    return [*(text for text in drawn[1:] if text != last), last]
