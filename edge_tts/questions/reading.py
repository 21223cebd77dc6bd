"""Check questions, and read files of them."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError

Id = str | int | float | bool
"""An id as JSON has it: 1 and "1" are two."""
MAX_QUESTION_CHARS = 20_000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors put before UTF-8."""
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Those of UTF-16."""
_FINAL = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
"""The last line of a worked solution in GSM8K."""


@dataclass(frozen=True)
class Question:
    """One line of a file of questions."""

    id: str
    question: str
    answer: str | None = None
    """The right answer, where it is known."""


def checked_question(question: str) -> str:
    """``question`` without surrounding space. Raises InputError where it is empty, too long or not plain text."""
    text = question.strip()
    if not text:
        raise InputError('the question is empty; write one, for example: edge-reason solve "What is 3 times 14?"')
    if len(text) > MAX_QUESTION_CHARS:
        raise InputError(
            f"the question has {len(text):,} characters and at most {MAX_QUESTION_CHARS:,} are allowed; shorten it"
        )
    if control := next((c for c in text if ord(c) < 32 and c not in "\n\r\t"), None):
        raise InputError(f"the question contains the control character {control!r}; give plain text")
    if half := next((c for c in text if "\ud800" <= c <= "\udfff"), None):
        raise InputError(f"the question contains {half!r}, which is no whole character; give it as UTF-8 text")
    return text


def read_questions(path: Path) -> list[Question]:
    """Read a file of JSON objects, one a line, with ``question`` and optionally ``id`` and ``answer``.

    Raises InputError that names file and line where a line cannot be used.
    """
    questions = []
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path):
        question = parse_question(line, number, path)
        if question.id in seen:
            raise InputError(
                f"{path}, line {number}: the id {question.id!r} is used in line {seen[question.id]} already"
            )
        seen[question.id] = number
        questions.append(question)
    if not questions:
        raise InputError(f'{path} contains no questions; write JSON objects with a "question", one a line')
    return questions


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of ``path`` that are not blank, with their numbers and without a byte-order mark.

    Raises InputError where the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    if content.startswith(_WIDE_MARKS) and b"\0" in content:
        raise InputError(f"{path} is not UTF-8 text but UTF-16; save the file as UTF-8")
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).splitlines(), 1):
        if line.strip():
            yield number, line


def parse_question(line: bytes, number: int, path: Path) -> Question:
    """The question in line ``number`` of ``path``. Raises InputError that names both where it cannot be used."""
    try:
        row = parse_object(line)
        id = given_id(row)
        return question_of(row, str(number if id is None else id))
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error}") from error


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object in ``line``. Raises InputError."""
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise InputError("not JSON that can be read (too many nested brackets)") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"not JSON that can be read ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f'the line must be a JSON object with a "question" that is text, found {shown(row)}')
    return row


def given_id(row: dict[str, Any]) -> Id | None:
    """The id of a JSON object, None where it has none. Raises InputError for one that is neither text nor a number."""
    id: Id | None = row.get("id")
    if isinstance(id, list | dict) or (isinstance(id, float) and not math.isfinite(id)):
        raise InputError(f"the id must be text or a number, found {shown(id)}")
    return id


def question_of(row: dict[str, Any], id: str) -> Question:
    """The question of a JSON object. Raises InputError where it cannot be asked."""
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str):
        found = shown(question) if "question" in row else "none"
        raise InputError(f'the line must be a JSON object with a "question" that is text, found {found}')
    text = checked_question(question)
    if isinstance(answer, list | dict) or (isinstance(answer, float) and not math.isfinite(answer)):
        raise InputError(f"the answer must be text or a number, found {shown(answer)}")
    return Question(id, text, None if answer is None else final_answer(str(answer)))


def final_answer(answer: str) -> str:
    """``answer``; of a worked solution that ends in "#### 5", as GSM8K writes it, only the "5"."""
    found = _FINAL.findall(answer)
    return found[-1].strip() if found else answer


def shown(value: Any) -> str:
    """A value of JSON for a message, cut where it is long."""
    return reprlib.repr(value)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
