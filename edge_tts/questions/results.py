"""The results file of ``solve --file``: one line a question, only ever added to, so that a run can resume."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import Budget, Result
from edge_tts.errors import InputError
from edge_tts.files.json_lines import read_lines
from edge_tts.questions.reading import Question


@dataclass(frozen=True)
class Settings:
    """What must be equal for results to belong to one output file."""

    strategy: str
    budget: Budget
    seed: int
    pack: str
    calculator: bool


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
