"""Rows of the rollouts recipe: traces of a policy with a label for every step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError


@dataclass(frozen=True)
class Row:
    """One labelled trace; a revision is a trace of its question, whatever was tried before it."""

    id: str
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    answer: str | None = None
    correct: bool | None = None


def read_rows(path: Path) -> list[Row]:
    """Read labelled traces; raises InputError, with the line, for a row that cannot be used.

    A revision's row may have ``attempts``, the texts before it. They are not read: a verifier judges a
    revision by its own steps.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            steps, labels = tuple(map(str, raw["steps"])), tuple(map(float, raw["labels"]))
            if not steps or len(steps) != len(labels) or not all(0 <= label <= 1 for label in labels):
                raise ValueError(f"{len(steps)} steps with labels {labels}; one label in [0, 1] per step is needed")
            rows.append(Row(raw["id"], raw["question"], steps, labels, raw.get("answer"), raw.get("correct")))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number}: not a labelled trace ({error})") from error
    if not rows:
        raise InputError(f"{path} has no labelled traces; run the rollouts first")
    return rows
