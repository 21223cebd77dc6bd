"""Rows of the results file of ``solve --file``: one for each question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import Budget
from edge_tts.errors import EdgeError
from edge_tts.events import Result
from edge_tts.questions.lines import Line
from edge_tts.questions.reading import Question


@dataclass(frozen=True)
class Settings:
    """What all results in one file have in common."""

    strategy: str
    budget: Budget
    seed: int
    pack: str
    """Title of the pack or model."""
    calculator: bool
    kind: str | None = None
    """Kind of answer asked for; None: told from each question."""
    format: str = "auto"
    sampling: dict[str, Any] = field(default_factory=dict)
    """Settings that take the place of the model's own."""
    others: dict[str, Any] = field(default_factory=dict)
    """What else makes a difference to results, such as a larger model for unsure questions."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def result_row(line: Line, question: Question, result: Result, settings: Settings) -> dict[str, Any]:
    """A result as a JSON object, with ``expected`` and ``correct`` where the right answer is known, and ``sure`` where
    the settings have a least confidence."""
    content = result.to_dict()
    least = settings.others.get("min_confidence")
    sure = {} if least is None else {"sure": result.confidence >= least}
    return {"id": line.id, **_asked(question, result.answer), **sure, **content, "settings": settings.to_dict()}


def regraded(row: dict[str, Any], question: Question) -> dict[str, Any]:
    """A row of the same question whose right answer was another one, or not known."""
    kept = {name: value for name, value in row.items() if name not in ("id", "question", "expected", "correct")}
    return {"id": row["id"], **_asked(question, row.get("answer")), **kept}


def failure_row(line: Line, error: str | Exception, settings: Settings) -> dict[str, Any]:
    """What stands for a line that cannot be used, or whose question could not be answered."""
    if isinstance(error, Exception) and not isinstance(error, EdgeError):
        error = f"internal error: {type(error).__name__}: {error}".partition("\n")[0]
    question = {} if line.question is None else {"question": line.question.question}
    return {"id": line.id, **question, "error": str(error), "settings": settings.to_dict()}


def is_failure(row: Mapping[str, Any]) -> bool:
    """Whether ``row`` is one of :func:`failure_row`."""
    return "error" in row and "usage" not in row


def _asked(question: Question, answer: Any) -> dict[str, Any]:
    if question.answer is None:
        return {"question": question.question}
    correct = is_correct(answer if isinstance(answer, str) else None, question.answer)
    return {"question": question.question, "expected": question.answer, "correct": correct}
