"""Searches made up for the tests of what the terminal shows."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from edge_tts.core import Budget, Usage
from edge_tts.events import Result, StepTaken
from edge_tts.questions.recording import Recording
from edge_tts.questions.results import Settings
from edge_tts.questions.saved_search import SavedSearch


def console(width: int = 80, height: int = 24, terminal: bool = False) -> Console:
    """A console whose output is ``console.file.getvalue()``."""
    return Console(
        file=StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        highlight=False,
        markup=False,
    )


def said(console: Console) -> str:
    """What was printed on it."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def result(answer: str | None = "76", confidence: float = 0.92, **others: object) -> Result:
    """A result of a search of five samples."""
    fields: dict[str, object] = {
        "steps": ("x = 12 * 8  # 96", "answer = x - 20  # 76"),
        "finished": answer is not None,
        "strategy": "adaptive:n=16",
        "reason": "asked for",
        "difficulty": None,
        "stop_reason": "decided",
        "support": 0.8,
        "usage": Usage(policy_tokens=488, seconds=19.87, peak_memory_mb=1534),
        "seed": 0,
        "prompt_tokens": 40,
        "format": "program",
        "votes": ((answer, 0.8), ("54", 0.2)) if answer else (),
    }
    return Result(answer=answer, confidence=confidence, **(fields | others))  # type: ignore[arg-type]


def finished(lane: int, *steps: str, answer: str | None = None, error: str = "") -> StepTaken:
    """The event with which the candidate of ``lane`` ends."""
    return StepTaken(lane, steps[-1], True, steps, error=error, answer=answer)


def search(question: str = "How many pencils are left?", **others: object) -> SavedSearch:
    """A search with two answers, a program that failed, and a candidate that did not end."""
    recording = Recording()
    recording.take(finished(0, "x = 12 * 8  # 96", "answer = x - 20  # 76", answer="76"))
    recording.take(finished(1, "answer = 54", answer="54"))
    recording.take(finished(2, "answer = 76.0", answer="76.0"))
    recording.take(finished(3, "y = z", error="NameError: name 'z' is not defined"))
    recording.take(StepTaken(4, "x = 12", False, ("x = 12",)))
    settings = Settings("auto", Budget(), 0, "a-model", True)
    return SavedSearch.of(question, settings, recording, result(**others))  # type: ignore[arg-type]
