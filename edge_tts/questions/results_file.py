"""The results file of ``solve --file``: what it has is kept, what it lacks is added, and it resumes after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from edge_tts.core import Usage
from edge_tts.errors import InputError, ResourceError
from edge_tts.files.atomic import FULL, only_process, sync_names
from edge_tts.files.json_lines import Appender, dump_line, parse_line
from edge_tts.files.typed import typed
from edge_tts.questions.lines import Line, key
from edge_tts.questions.reading import BYTE_ORDER_MARK, Question
from edge_tts.questions.results import Settings, is_failure, regraded

_BEGINNING = re.compile(rb'\{"id":[^ ]')
"""What every row begins with; other programs write a space there."""


@dataclass
class Tally:
    """How the questions of a file went so far."""

    answered: int = 0
    unanswered: int = 0
    unsure: int = 0
    """Those of both whose confidence is below the least that the settings ask for."""
    graded: int = 0
    right: int = 0
    failed: int = 0
    handed_over: int = 0
    """Those that a larger model was asked too."""
    price: float = 0.0
    """What that cost, where prices were given."""

    def count(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        if is_failure(row):
            self.failed += 1
            return
        self.answered += row.get("answer") is not None
        self.unanswered += row.get("answer") is None
        if isinstance(asked := row.get("escalation"), dict):
            self.handed_over += 1
            price = asked.get("price")
            self.price += price if isinstance(price, int | float) else 0.0
        self.unsure += row.get("sure") is False
        self.graded += "correct" in row
        self.right += row.get("correct") is True


@dataclass(frozen=True)
class _Stored:
    """One row of the file."""

    number: int
    start: int
    """Offset of its line in bytes."""
    line: bytes
    """With its line end, which a crash may have cut off."""
    row: dict[str, Any]


@dataclass
class _Found:
    """What the file has."""

    done: set[str] = field(default_factory=set)
    """Keys of the questions whose results are current."""
    others: int = 0
    """Rows of questions that are not asked now."""
    stale: bool = False
    """Whether there are rows that do not count any more."""
    unended: bool = False
    """Whether a crash cut the line end off the last row, which is whole."""
    tally: Tally = field(default_factory=Tally)
    spent: Usage = field(default_factory=Usage)
    """What the current results cost."""


class ResultsFile:
    """The file at ``path`` while one process adds to it; a context manager.

    A row counts for the question that has its id and its text. Opening takes out rows that do not count: of a
    question that has changed, and of failures, which are tried again; where only the right answer has changed, the
    row is graded anew. Rows of questions that are not asked now are kept, before the others. Rows are on the disk
    when :meth:`add` returns.

    Opening raises InputError where the file is no results file, was made with other settings, cannot be written, or
    is in use; ResourceError where the disk is full.
    """

    def __init__(self, path: Path, lines: Sequence[Line], settings: Settings) -> None:
        self.path = path.resolve()
        self._new = self.path.with_name(f".{self.path.name}.new")
        self._shown = path
        self._settings = settings.to_dict()
        self._questions = {key(line.id): line.question for line in lines if line.question is not None}
        self._ranks = {key(line.id): rank for rank, line in enumerate(lines)}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            with _writing(self._shown):
                opened.enter_context(only_process(self.path, self._shown))  # rows of others would be lost
                self._new.unlink(missing_ok=True)  # of a process that was killed
            found = self._examine()
            if found.stale:
                self._replace(self._current())
            elif found.unended:
                with _writing(self._shown), self.path.open("ab") as file:
                    file.write(b"\n")
            self._sink = opened.enter_context(Appender(self.path))
            self._open = opened.pop_all()
        self.done, self.others, self.tally = frozenset(found.done), found.others, found.tally
        self.spent = found.spent
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, row: dict[str, Any]) -> None:
        """Append one row. Raises ResourceError where it cannot be written."""
        self._sink.add([row])
        self.tally.count(row)

    def put_in_order(self) -> None:
        """Sort the rows as the lines of questions are; call it last. Raises ResourceError where the disk is full."""
        self._sink.close()
        spans = []
        for stored in self._rows():
            rank = self._ranks.get(key(stored.row["id"]), -1)
            spans.append((rank, stored.start, len(stored.line)))
        ordered = sorted(spans)
        blank = self.path.stat().st_size - sum(length for _, _, length in spans)
        if blank or spans != ordered:
            with self.path.open("rb") as source:
                self._replace(_pieces(source, ordered))

    def _examine(self) -> _Found:
        found = _Found()
        for stored in self._rows():
            self._require_settings(stored)
            row, name = stored.row, key(stored.row["id"])
            found.unended = not stored.line.endswith(b"\n")
            found.stale |= stored.line.startswith(BYTE_ORDER_MARK)
            if is_failure(row) or name in found.done:
                found.stale = True
                continue
            if not isinstance(row.get("question"), str):
                raise self._no_result(stored.number, "question")
            question = self._questions.get(name)
            if question is None and name not in self._ranks:
                found.others += 1
            elif question is None or question.question != row["question"]:
                found.stale = True
            else:
                found.done.add(name)
                found.stale |= question.answer != row.get("expected")
                found.tally.count(self._graded(row, question))
                wrong = f"{self._shown}, line {stored.number}: not a result"
                found.spent += typed(Usage, row.get("usage", {}), wrong, InputError)
        return found

    def _current(self) -> Iterator[bytes]:
        """Lines of the rows that count."""
        done: set[str] = set()
        for stored in self._rows():
            name = key(stored.row["id"])
            question = self._questions.get(name)
            if is_failure(stored.row) or name in done:
                continue
            if name not in self._ranks:
                yield dump_line(stored.row)
            elif question is not None and question.question == stored.row["question"]:
                done.add(name)
                yield dump_line(self._graded(stored.row, question))

    @staticmethod
    def _graded(row: dict[str, Any], question: Question) -> dict[str, Any]:
        return row if question.answer == row.get("expected") else regraded(row, question)

    def _rows(self) -> Iterator[_Stored]:
        """The rows of the file; none where it does not exist. A last line that was cut is left out."""
        try:
            with self.path.open("rb") as source:
                yield from self._parsed(source)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"cannot read {self._shown}: {error.strerror}; choose another --out") from error

    def _parsed(self, source: BinaryIO) -> Iterator[_Stored]:
        start, found = 0, False
        for number, line in enumerate(source, 1):
            if line.strip():
                try:
                    row = parse_line(line, number, self._shown)
                except InputError:
                    if line.endswith(b"\n"):
                        raise
                    if not found and not (_BEGINNING.match(line) or b'{"id":'.startswith(line)):
                        # Appending would remove all of a file of unknown content.
                        raise InputError(
                            f"{self._shown} is not empty and contains no whole result; delete it or choose another "
                            "--out"
                        ) from None
                    return
                for name in ("settings", "id"):
                    if name not in row:
                        raise self._no_result(number, name)
                found = True
                yield _Stored(number, start, line, row)
            start += len(line)

    def _require_settings(self, stored: _Stored) -> None:
        found = stored.row["settings"]
        if found == self._settings:
            return
        if not isinstance(found, dict):
            raise self._no_result(stored.number, "settings")
        different = "; ".join(_differences(found, self._settings))
        raise InputError(f"{self._shown} was made with other settings ({different}); choose another --out")

    def _no_result(self, number: int, missing: str) -> InputError:
        return InputError(
            f"{self._shown}, line {number}: not a result, since {missing!r} is missing; choose another --out"
        )

    def _replace(self, lines: Iterator[bytes]) -> None:
        """Put a file of ``lines`` in the place of this one, all or nothing."""
        new = self._new
        try:
            with _writing(self._shown):
                with new.open("wb", buffering=2**20) as file:
                    for line in lines:
                        file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                shutil.copymode(self.path, new)
                new.replace(self.path)
                sync_names(self.path.parent)
        finally:
            new.unlink(missing_ok=True)


def _pieces(source: BinaryIO, spans: Sequence[tuple[int, int, int]]) -> Iterator[bytes]:
    for _, start, length in spans:
        source.seek(start)
        yield source.read(length)


def check_out(out: Path, questions: Path) -> None:
    """Raise InputError where ``out`` cannot be the results file of the file ``questions``."""
    if out.suffix == ".gz":
        raise InputError(f"results are written as plain text, not packed as {out} says; choose another --out")
    try:
        out.resolve()
        same = out.exists() and out.samefile(questions)
    except (OSError, RuntimeError) as error:  # links that go round in a circle are a RuntimeError
        raise InputError(f"cannot use {out} ({error}); choose another --out") from error
    if same:
        raise InputError(f"{out} is the file of questions itself; choose another --out")
    if not out.resolve().parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}; create it or choose another --out")
    if out.exists() and not out.is_file():
        what = "Is a directory" if out.is_dir() else "It is no file that can be resumed"
        raise InputError(f"cannot write {out}: {what}; choose another --out")


@contextlib.contextmanager
def _writing(shown: Path) -> Iterator[None]:
    """Turn an OSError raised while writing into ResourceError (disk full) or InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise ResourceError(
                f"cannot write {shown}: {error.strerror}; free some space and run the same command again, which "
                "continues after the lines written so far"
            ) from error
        raise InputError(f"cannot write {shown}: {error.strerror or error}; choose another --out") from error


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What of two settings differs, such as "budget.generations: null, now 4"."""
    different: list[str] = []
    for name in dict.fromkeys((*now, *then)):
        before, after = then.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            different += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            different.append(f"{prefix}{name}: {_json(before)}, now {_json(after)}")
    return different


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:  # a file's own content
        return "too deeply nested to show"
