"""A file of questions line by line, in which lines that cannot be used are kept beside those that can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError
from edge_tts.questions.reading import Id, Question, given_id, numbered_lines, parse_object, question_of, shown


@dataclass(frozen=True)
class Line:
    """One line of a file of questions: a question, or why it is none."""

    number: int
    """Counted from 1."""
    id: Id
    """As given, or made up from the number; unlike that of every other line."""
    question: Question | None
    """Its own id is ``key(id)``."""
    error: str = ""


@dataclass(frozen=True)
class _Parsed:
    number: int
    id: Id | None
    question: Question | None
    error: str = ""


def key(id: Any) -> str:
    """``id`` as JSON text, which is equal for equal ids of the same type only."""
    return json.dumps(id)


def question_lines(path: Path) -> tuple[Line, ...]:
    """The lines of ``path`` that are not blank: JSON objects with ``question``, and optionally ``id`` and ``answer``.

    Raises InputError where the file cannot be read, or no line of it can be used.
    """
    parsed = [_parsed(number, line) for number, line in numbered_lines(path)]
    if not parsed:
        raise InputError(f'{path} contains no questions; write JSON objects with a "question", one a line')
    lines = tuple(_named(parsed))
    if all(line.question is None for line in lines):
        others = f", nor can the {len(lines) - 1} others" if len(lines) > 1 else ""
        raise InputError(f"{path}, {lines[0].error}; this line cannot be used{others}")
    return lines


def _parsed(number: int, line: bytes) -> _Parsed:
    id: Id | None = None
    try:
        row = parse_object(line)
        id = given_id(row)
        return _Parsed(number, id, question_of(row, key(id)))
    except InputError as error:
        return _Parsed(number, id, None, f"line {number}: {error}")


def _named(parsed: Sequence[_Parsed]) -> Iterator[Line]:
    """Lines with ids of their own: a question keeps the id it was given, the first of several that share one."""
    owners: dict[str, _Parsed] = {}
    for good in (True, False):
        for line in parsed:
            if line.id is not None and (line.question is not None) == good:
                owners.setdefault(key(line.id), line)
    taken = set(owners)
    for line in parsed:
        question, error = line.question, line.error
        if line.id is not None and owners[key(line.id)] is line:
            yield Line(line.number, line.id, question, error)
            continue
        if line.id is not None and question is not None:
            first = owners[key(line.id)].number
            question, error = None, f"line {line.number}: the id {shown(line.id)} is used in line {first} already"
        id = _made_up(line.number, taken)
        yield Line(line.number, id, question and Question(key(id), question.question, question.answer), error)


def _made_up(number: int, taken: set[str]) -> str:
    """An id for line ``number`` that no line was given."""
    names = (f"line {number}" if turn == 1 else f"line {number} ({turn})" for turn in count(1))
    id = next(name for name in names if key(name) not in taken)
    taken.add(key(id))
    return id
