"""Check questions, and read files of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError

MAX_QUESTION_CHARS = 20_000


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
    return text


def read_questions(path: Path) -> list[Question]:
    """Read a file of JSON objects, one a line, with ``question`` and optionally ``id`` and ``answer``.

    Raises InputError that names file and line where a line cannot be used.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    questions = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
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


def parse_question(line: bytes, number: int, path: Path) -> Question:
    """The question in line ``number`` of ``path``. Raises InputError that names both where it cannot be used."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text (byte {error.start}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InputError(f'{path}, line {number}: the line must be a JSON object with a "question" that is text')
    try:
        text = checked_question(row["question"])
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    answer, id = row.get("answer"), row.get("id")
    if isinstance(answer, list | dict):
        raise InputError(f"{path}, line {number}: the answer must be text or a number, found {answer!r}")
    return Question(str(number if id is None else id), text, None if answer is None else str(answer))
