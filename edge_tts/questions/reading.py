"""Questions: what may be asked, and files of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError

MAX_QUESTION_CHARS = 20_000


@dataclass(frozen=True)
class Question:
    """One line of an input file; ``answer`` is the truth where it is known."""

    id: str
    question: str
    answer: str | None = None


def checked(question: str) -> str:
    """The question without surrounding space. Raises InputError where it is no question."""
    text = question.strip()
    if not text:
        raise InputError('the question is empty; write one, for example: edge-reason solve "What is 3 times 14?"')
    if len(text) > MAX_QUESTION_CHARS:
        raise InputError(
            f"the question has {len(text):,} characters, more than the {MAX_QUESTION_CHARS:,} allowed; shorten it"
        )
    if any(ord(c) < 32 and c not in "\n\r\t" for c in text):
        raise InputError("the question holds binary data (control characters); give plain text")
    return text


def read_questions(path: Path) -> list[Question]:
    """Read JSON lines with ``question`` and optionally ``id`` and ``answer``.

    Raises InputError naming file and line for anything that cannot be used.
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
            raise InputError(f"{path}, line {number}: id {question.id!r} is that of line {seen[question.id]} too")
        seen[question.id] = number
        questions.append(question)
    if not questions:
        raise InputError(f'{path} holds no questions; give JSON lines with a "question" each')
    return questions


def parse_question(line: bytes, number: int, path: Path) -> Question:
    """The question in line ``number`` of ``path``. Raises InputError naming file and line where it cannot be used."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text (byte {error.start}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InputError(f'{path}, line {number}: a JSON object with a text "question" is needed')
    try:
        text = checked(row["question"])
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    answer, id = row.get("answer"), row.get("id")
    if isinstance(answer, list | dict):
        raise InputError(f"{path}, line {number}: the answer {answer!r} is no text or number")
    return Question(str(number if id is None else id), text, None if answer is None else str(answer))
