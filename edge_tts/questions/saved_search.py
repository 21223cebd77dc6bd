"""A whole search in one JSON file: the question, every candidate, the result, and a time line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError
from edge_tts.events import Result
from edge_tts.files.atomic import write_text
from edge_tts.files.typed import typed
from edge_tts.questions.recording import AnswerGroup, Attempt, Moment, Recording, grouped
from edge_tts.questions.results import Settings

FORMAT = 1
"""Of the files written; a file with another number is refused."""
MOST_DIGITS = 18
"""Of a whole number in a file."""


@dataclass(frozen=True)
class Turn:
    """An earlier message of the chat."""

    role: str
    content: str


@dataclass(frozen=True)
class SavedSearch:
    """What is known of a search afterwards. Raises InputError for a share that is not in [0, 1]."""

    format: int
    version: str
    """Of the program that saved it."""
    date: str
    """ISO 8601, when it was saved."""
    question: str
    settings: Settings
    result: Result
    candidates: tuple[Attempt, ...]
    events: tuple[Moment, ...]
    earlier: tuple[Turn, ...] = ()
    """What was said before the question."""

    def __post_init__(self) -> None:
        shares = {"result.confidence": self.result.confidence, "result.support": self.result.support}
        shares |= {f"result.votes[{i}]": share for i, (_, share) in enumerate(self.result.votes)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name} must be a share from 0 to 1, found {share!r}; correct the file")

    @classmethod
    def of(
        cls, question: str, settings: Settings, recording: Recording, result: Result, earlier: tuple[Turn, ...] = ()
    ) -> SavedSearch:
        """The search of ``recording`` that ended with ``result``, as of now."""
        from datetime import UTC, datetime

        made, now = version("edge-reasoning-runtime"), datetime.now(UTC).isoformat(timespec="seconds")
        attempts, moments = tuple(recording.attempts), tuple(recording.moments)
        return cls(FORMAT, made, now, question, settings, result, attempts, moments, earlier)

    def groups(self) -> list[AnswerGroup]:
        """The answers with their candidates, most first; that of the result is named as the result has it, and comes
        first of equally many."""
        named, chosen = [], self.result.answer
        for group in grouped(self.candidates):
            if chosen is not None and any(attempt.answer == chosen for attempt in group.attempts):
                group = replace(group, answer=chosen)
            named.append(group)
        return sorted(named, key=lambda group: (-len(group.attempts), group.answer != chosen))

    @property
    def failed(self) -> tuple[Attempt, ...]:
        """The candidates that ended without an answer."""
        return tuple(a for a in self.candidates if a.answer is None and a.finished)

    @property
    def unfinished(self) -> tuple[Attempt, ...]:
        """The candidates that did not end."""
        return tuple(a for a in self.candidates if a.answer is None and not a.finished)


def save(search: SavedSearch, path: Path) -> None:
    """Write ``search`` to ``path`` all or nothing. Raises InputError, ResourceError where that cannot be done."""
    write_text(path, json.dumps(asdict(search), ensure_ascii=False, indent=1) + "\n")


def read(path: Path) -> SavedSearch:
    """The search in the file ``path``. Raises InputError in one sentence where it holds none."""
    try:
        text = path.read_bytes().decode("utf-8")
        content: Any = json.loads(text, parse_float=_number, parse_int=_whole, parse_constant=_number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({_brief(error)}); give a file that `solve --save` wrote") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int) or "candidates" not in content:
        raise InputError(f"{path} is no saved search; give a file that `solve --save` wrote")
    if found != FORMAT:
        raise InputError(f"{path} has the format {found} and this version reads {FORMAT}; save the search again")
    return typed(SavedSearch, content, str(path), InputError)


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
