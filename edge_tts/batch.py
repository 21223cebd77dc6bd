"""Solving a file of questions: shared batches, append-only results, resume."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_tts.answers import is_correct
from edge_tts.core import Budget, Done, Event, Result
from edge_tts.errors import InputError
from edge_tts.json_lines import read_lines
from edge_tts.solver import Solver, checked

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Question:
    """One line of an input file; ``answer`` is the truth where it is known."""

    id: str
    question: str
    answer: str | None = None


@dataclass(frozen=True)
class Settings:
    """What must be equal for results to belong to one output file."""

    strategy: str
    budget: Budget
    seed: int
    pack: str
    calculator: bool


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


def finished_ids(out: Path, settings: Settings) -> set[str]:
    """Ids already in ``out``. Raises InputError where it was made with other settings or is not a results file."""
    done: set[str] = set()
    wanted = asdict(settings)
    for number, row in read_lines(out):
        try:
            found, row_id = row["settings"], row["id"]
        except KeyError as error:
            raise InputError(f"{out}, line {number}: not a result of this command; choose another --out") from error
        if found != wanted:
            different = [f"{k}: {found.get(k)!r}, now {v!r}" for k, v in wanted.items() if found.get(k) != v]
            raise InputError(f"{out} was made with other settings ({'; '.join(different)}); choose another --out")
        done.add(row_id)
    if not done and out.exists() and out.stat().st_size:
        # Going on would remove what is there as a line that a crash cut, and it may be something else.
        raise InputError(f"{out} holds something, but no whole result; remove it or choose another --out")
    return done


def row(question: Question, result: Result, settings: Settings) -> dict[str, Any]:
    """One result as a JSON object; ``correct`` is there where the truth is known."""
    known = {} if question.answer is None else {"correct": is_correct(result.answer, question.answer)}
    return {"id": question.id, **known, **result.to_dict(), "settings": asdict(settings)}


def solve_all(
    solver: Solver, questions: Sequence[Question], settings: Settings, parallel: int
) -> Iterator[tuple[Question, Result]]:
    """Solve ``questions``, ``parallel`` at a time in one shared batch; yields them as they finish.

    Every question starts from the same seed, so that a resumed run draws what an uninterrupted one
    would. Closing the iterator cancels the questions under way.
    """

    def solve(question: Question, stopped: Callable[[], bool]) -> tuple[Question, Result] | None:
        events = solver.stream(question.question, settings.strategy, settings.budget, settings.seed)
        result = finish(events, stopped)
        return None if result is None else (question, result)

    return together(questions, solve, parallel)


def finish(events: Generator[Event | Done, None, None], stopped: Callable[[], bool]) -> Result | None:
    """The result of a solver's stream; None, and the search cancelled, once ``stopped``."""
    with closing(events):
        for event in events:
            if isinstance(event, Done):
                return event.result
            if stopped():
                break
    return None


def together(items: Sequence[_T], work: Callable[[_T, Callable[[], bool]], _R | None], parallel: int) -> Iterator[_R]:
    """Yield ``work(item, stopped)`` for all items as they finish, ``parallel`` at a time, each in a thread.

    ``work`` looks at ``stopped`` now and then and returns None where it broke off: when the iterator is
    closed or another item failed. Raises what ``work`` raises.
    """
    todo: queue.SimpleQueue[_T] = queue.SimpleQueue()
    done: queue.SimpleQueue[_R | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    for item in items:
        todo.put(item)

    def run() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                result = work(item, stop.is_set)
                if result is not None:
                    done.put(result)
            except Exception as error:
                done.put(error)
                return

    threads = [threading.Thread(target=run, daemon=True) for _ in range(max(1, min(parallel, len(items))))]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            found = done.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
