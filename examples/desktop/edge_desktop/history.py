"""Earlier questions and their answers, in an SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from edge_tts import Result, Usage
from edge_tts.search.wording import escalated

SHOWN = 500
"""Most entries listed at once; the newest come first."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    asked_at TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT,
    stop_reason TEXT NOT NULL,
    strategy TEXT NOT NULL,
    reason TEXT NOT NULL,
    difficulty INTEGER,
    support REAL NOT NULL,
    steps TEXT NOT NULL,
    scores TEXT NOT NULL,
    usage TEXT NOT NULL,
    details TEXT NOT NULL DEFAULT '{}'
)
"""
_ADD_DETAILS = "ALTER TABLE answers ADD COLUMN details TEXT NOT NULL DEFAULT '{}'"
"""For a file of a version that kept none."""
_WAIT_SECONDS = 5.0
"""Longest wait while another window writes."""

_T = TypeVar("_T")


class HistoryError(Exception):
    """The history cannot be read or written. The message tells the user why."""


@dataclass(frozen=True)
class Details:
    """What else is known of an answer; entries of earlier versions have none of it."""

    model: str = ""
    format: str = ""
    confidence: float | None = None
    """Probability in [0, 1] that the answer is right; None where it is not known."""
    voters: int = 0
    """Samples that reached an answer; 0 where votes are not counted in samples."""
    samples: int = 0
    """Samples that ended."""
    votes: tuple[tuple[str, float], ...] = ()
    """Answers and their share of the vote, in [0, 1], most first."""
    explanation: str = ""
    escalation: str = ""
    """In words, where a larger model was asked too."""
    notes: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    """Where there is no answer: the steps of the attempt that got furthest."""

    @classmethod
    def of(cls, result: Result, model: str, voters: int, samples: int) -> Self:
        """The details of ``result``, which ``model`` gave after ``samples`` samples of which ``voters`` answered."""
        return cls(
            model,
            result.format,
            None if result.answer is None else result.confidence,
            voters,
            samples,
            result.votes,
            result.explanation,
            escalated(result.escalation) if result.escalation else "",
            result.notes,
            result.partial,
        )


@dataclass(frozen=True)
class Answered:
    """A question, its answer if there is one, and its cost."""

    asked_at: str
    """ISO 8601, UTC."""
    question: str
    answer: str | None
    stop_reason: str
    strategy: str
    reason: str
    difficulty: int | None
    """0 (easiest) to 4; None where it was not estimated."""
    support: float
    steps: tuple[str, ...]
    scores: tuple[float, ...]
    usage: Usage
    details: Details = Details()

    @classmethod
    def of(cls, question: str, result: Result, details: Details) -> Self:
        """The record of ``result``, dated now."""
        return cls(
            datetime.now(UTC).isoformat(timespec="seconds"),
            question,
            result.answer,
            result.stop_reason,
            result.strategy,
            result.reason,
            result.difficulty.bin if result.difficulty else None,
            result.support,
            result.steps,
            result.scores,
            result.usage,
            details,
        )

    @property
    def when(self) -> str:
        """``asked_at`` in local time, for display."""
        return datetime.fromisoformat(self.asked_at).astimezone().strftime("%d %b %Y, %H:%M")


_COLUMNS = [field.name for field in fields(Answered)]


class History:
    """The answered questions in one file, which is created if it is missing. Every method may raise HistoryError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._guarded(self._open)

    def add(self, answered: Answered) -> int:
        """Store ``answered`` and return its id."""
        row = asdict(answered)
        row |= {name: json.dumps(row[name], ensure_ascii=False) for name in ("steps", "scores", "usage", "details")}
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        done = self._run(f"INSERT INTO answers ({', '.join(_COLUMNS)}) VALUES ({marks})", row)
        return int(done.lastrowid or 0)

    def find(self, text: str = "") -> list[tuple[int, str, str | None]]:
        """(id, question, answer) of the newest entries that contain ``text`` in the question or the answer."""
        wanted = text.strip().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        query = (
            "SELECT id, question, answer FROM answers WHERE question LIKE :like ESCAPE '\\' "
            "OR answer LIKE :like ESCAPE '\\' ORDER BY id DESC LIMIT :most"
        )
        return self._run(query, {"like": f"%{wanted}%", "most": SHOWN}).fetchall()

    def get(self, entry: int) -> Answered:
        """The entry with the id ``entry``."""
        row = self._run(f"SELECT {', '.join(_COLUMNS)} FROM answers WHERE id = ?", (entry,)).fetchone()
        if row is None:
            raise HistoryError("This entry is not in the history any more: another window deleted it.")
        return self._guarded(lambda: _read(dict(zip(_COLUMNS, row, strict=True))))

    def delete(self, entry: int) -> None:
        """Delete the entry with the id ``entry``."""
        self._run("DELETE FROM answers WHERE id = ?", (entry,))

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a power cut damages nothing
        connection.execute(_SCHEMA)
        if "details" not in {row[1] for row in connection.execute("PRAGMA table_info(answers)")}:
            connection.execute(_ADD_DETAILS)
        return connection

    def _run(self, query: str, values: Any) -> sqlite3.Cursor:
        return self._guarded(lambda: self._connection.execute(query, values))

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (sqlite3.Error, msgspec.MsgspecError, OSError, ValueError, TypeError, KeyError) as error:
            raise HistoryError(
                f"The history in {self._path} cannot be used ({error}). Solving works without it. To get it "
                "back, move that file away or make its folder writable."
            ) from error


def _read(row: dict[str, Any]) -> Answered:
    usage: dict[str, Any] = json.loads(row["usage"])
    known = {field.name for field in fields(Usage)}
    row["usage"] = Usage(**{name: value for name, value in usage.items() if name in known})
    row["steps"], row["scores"] = tuple(json.loads(row["steps"])), tuple(json.loads(row["scores"]))
    row["details"] = msgspec.json.decode(row["details"], type=Details)
    return Answered(**row)
