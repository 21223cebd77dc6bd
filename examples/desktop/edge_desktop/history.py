"""The questions asked so far and their answers, kept in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from edge_tts import Result, Usage

SHOWN = 500
"""Most entries listed at once, the latest first."""

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
    usage TEXT NOT NULL
)
"""
_WAIT_SECONDS = 5.0
"""Longest wait for another window's write."""

_T = TypeVar("_T")


class HistoryError(Exception):
    """The history cannot be read or written; the message says why, for the user."""


@dataclass(frozen=True)
class Answered:
    """A question that was answered, or not, and what that cost."""

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

    @classmethod
    def of(cls, question: str, result: Result) -> Self:
        """The record of ``result``, as of now."""
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
        )

    @property
    def when(self) -> str:
        """``asked_at`` in local time, for people."""
        return datetime.fromisoformat(self.asked_at).astimezone().strftime("%d %b %Y, %H:%M")


_COLUMNS = [field.name for field in fields(Answered)]


class History:
    """All that was answered, in one file; made where it is missing. Every method raises HistoryError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._guarded(self._open)

    def add(self, answered: Answered) -> int:
        """Keep ``answered``; returns its id."""
        row = asdict(answered)
        row |= {name: json.dumps(row[name], ensure_ascii=False) for name in ("steps", "scores", "usage")}
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        done = self._run(f"INSERT INTO answers ({', '.join(_COLUMNS)}) VALUES ({marks})", row)
        return int(done.lastrowid or 0)

    def find(self, text: str = "") -> list[tuple[int, str, str | None]]:
        """(id, question, answer) of the latest entries, those with ``text`` in question or answer."""
        wanted = text.strip().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        query = (
            "SELECT id, question, answer FROM answers WHERE question LIKE :like ESCAPE '\\' "
            "OR answer LIKE :like ESCAPE '\\' ORDER BY id DESC LIMIT :most"
        )
        return self._run(query, {"like": f"%{wanted}%", "most": SHOWN}).fetchall()

    def get(self, entry: int) -> Answered:
        """The entry with that id."""
        row = self._run(f"SELECT {', '.join(_COLUMNS)} FROM answers WHERE id = ?", (entry,)).fetchone()
        if row is None:
            raise HistoryError("This entry is not in the history any more: another window deleted it.")
        return self._guarded(lambda: _read(dict(zip(_COLUMNS, row, strict=True))))

    def delete(self, entry: int) -> None:
        """Forget the entry with that id."""
        self._run("DELETE FROM answers WHERE id = ?", (entry,))

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode nothing is damaged by a power cut
        connection.execute(_SCHEMA)
        return connection

    def _run(self, query: str, values: Any) -> sqlite3.Cursor:
        return self._guarded(lambda: self._connection.execute(query, values))

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as error:
            raise HistoryError(
                f"The history in {self._path} cannot be used ({error}). Solving works without it; to have it "
                "again, move that file away or give this folder write permission."
            ) from error


def _read(row: dict[str, Any]) -> Answered:
    usage: dict[str, Any] = json.loads(row["usage"])
    known = {field.name for field in fields(Usage)}
    row["usage"] = Usage(**{name: value for name, value in usage.items() if name in known})
    row["steps"], row["scores"] = tuple(json.loads(row["steps"])), tuple(json.loads(row["scores"]))
    return Answered(**row)
