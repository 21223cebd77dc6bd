"""The results file of ``solve --file``: one line a question. Lines are only added, so that a run can resume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import Budget, Result
from edge_tts.errors import InputError
from edge_tts.files.json_lines import read_lines
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


def finished_ids(out: Path, settings: Settings) -> set[str]:
    """Ids of the questions whose results are in ``out``.

    Raises InputError where ``out`` was made with other settings or is not a results file.
    """
    done: set[str] = set()
    wanted = json.loads(json.dumps(asdict(settings)))
    for number, row in read_lines(out):
        try:
            found, row_id = row["settings"], row["id"]
        except KeyError as error:
            raise InputError(
                f"{out}, line {number}: not a result, since {error} is missing; choose another --out"
            ) from error
        if found != wanted:
            different = [f"{k}: {found.get(k)!r}, now {v!r}" for k, v in wanted.items() if found.get(k) != v]
            raise InputError(f"{out} was made with other settings ({'; '.join(different)}); choose another --out")
        done.add(row_id)
    if not done and out.exists() and out.stat().st_size:
        # Appending removes a last line that a crash cut short; here it would remove all of a file of unknown content.
        raise InputError(f"{out} is not empty and contains no whole result; delete it or choose another --out")
    return done


def result_row(question: Question, result: Result, settings: Settings) -> dict[str, Any]:
    """A result as a JSON object, with ``correct`` where the right answer is known."""
    correctness = {} if question.answer is None else {"correct": is_correct(result.answer, question.answer)}
    return {"id": question.id, **correctness, **result.to_dict(), "settings": asdict(settings)}
