"""Traces from JSON lines, with a label for every step where the file has them (what the rollouts recipe writes)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from edge_tts.errors import InputError

_T = TypeVar("_T")
Label = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Row:
    """One trace. A revision is a trace of its question, whatever was tried before it."""

    id: str
    """Names the question; traces of one question compete in best-of-N."""
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...] = ()
    """One for each step, in [0, 1]; none where the trace is not labelled."""
    answer: str | None = None
    correct: bool | None = None
    """Whether ``answer`` is right."""
    logprob: float | None = None
    """Mean log-probability of the policy's tokens, where it is known."""
    policy: str | None = None
    """Who wrote it, where traces of several policies are together."""


class _Line(msgspec.Struct):
    """A line of the file; keys beside these, such as a revision's ``attempts``, are ignored."""

    question: str
    steps: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    id: str | int | None = None
    labels: tuple[Label, ...] | None = None
    answer: str | int | float | None = None
    correct: bool | None = None
    logprob: float | None = None
    policy: str | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.steps):
            raise ValueError(f"{len(self.steps)} steps and {len(self.labels)} labels; give one label for each step")


def read_rows(path: Path, labelled: bool = True) -> list[Row]:
    """The traces in ``path``; without an ``id``, a trace belongs to its own question's text.

    Raises InputError, with the line, for a trace that cannot be used, such as one without labels where they are
    wanted (``labelled``), and for a file without traces.
    """
    what = "a labelled trace" if labelled else "a trace"
    rows = []
    for number, line in read_lines(path, _Line, what):
        if labelled and line.labels is None:
            raise InputError(f"{path}, line {number}: not {what} (there are no labels); run the rollouts recipe")
        name = line.question if line.id is None else str(line.id)
        answer = None if line.answer is None else str(line.answer)
        rows.append(
            Row(name, line.question, line.steps, line.labels or (), answer, line.correct, line.logprob, line.policy)
        )
    if not rows:
        raise InputError(f"{path} has no traces; give JSON lines with question and steps")
    return rows


def read_lines(path: Path, kind: type[_T], what: str) -> list[tuple[int, _T]]:
    """The lines of a JSON-lines file as ``kind``, with their numbers.

    Raises InputError, with the line, for one that is not ``what`` ("a trace").
    """
    found = []
    try:
        lines = path.read_bytes().splitlines()  # as bytes: text has other line ends, which JSON may hold
    except OSError as error:
        raise InputError(f"cannot read {path} ({error}); give a file of JSON lines") from error
    for number, line in enumerate(lines, 1):
        try:
            found.append((number, msgspec.json.decode(line, type=kind)))
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}, line {number}: not {what} ({error}); correct the line") from error
    return found
