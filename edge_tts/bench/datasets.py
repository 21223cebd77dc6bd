"""Problems with known answers: a JSON lines file, or a test set of the Hugging Face hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError
from edge_tts.questions.reading import Question, checked_question, numbered_lines, parse_question

SHOWN = 3
"""Most bad lines that an error lists; the others are counted."""

_Read = Callable[[], Question]


@dataclass(frozen=True)
class DataSet:
    """Problems in the order of their source; every one has an answer and an id of its own."""

    name: str
    """The hub set's name here, or the file's name without its ending."""
    problems: tuple[Question, ...]
    """At least one."""
    sha256: str
    """Over ids, questions and answers, in order."""
    left_out: tuple[str, ...] = ()
    """A sentence for each bad line, beginning with its number; empty unless they were to be skipped."""

    def describe(self, problems: int) -> dict[str, Any]:
        """What a study says of it that uses its first so many ``problems``."""
        return {"name": self.name, "sha256": self.sha256, "problems": problems}


@dataclass(frozen=True)
class HubSet:
    """Where a test set is on the hub, and how a row of it becomes a question."""

    path: str
    config: str | None
    columns: tuple[str, ...]
    """Those that ``read`` needs."""
    read: Callable[[Mapping[str, Any], int], Question]
    """Makes a question from a row and its number, counted from 0."""


def _gsm8k(row: Mapping[str, Any], index: int) -> Question:
    _, _, answer = str(row["answer"]).rpartition("#### ")
    return Question(f"gsm8k-test-{index}", str(row["question"]), answer.replace(",", "").strip())


def _svamp(row: Mapping[str, Any], _: int) -> Question:
    body = str(row["Body"]).strip()
    if body and body[-1] not in ".?!":
        body += "."
    return Question(str(row["ID"]), f"{body} {row['Question']}", str(row["Answer"]).removesuffix(".0"))


def _math_500(row: Mapping[str, Any], _: int) -> Question:
    return Question(str(row["unique_id"]), str(row["problem"]), str(row["answer"]))


HUB = {
    "gsm8k": HubSet("openai/gsm8k", "main", ("question", "answer"), _gsm8k),
    "svamp": HubSet("ChilleD/SVAMP", None, ("ID", "Body", "Question", "Answer"), _svamp),
    "math-500": HubSet("HuggingFaceH4/MATH-500", None, ("unique_id", "problem", "answer"), _math_500),
}
"""Test sets known by name; their split "test" is used."""


def load(source: str, skip_bad: bool = False) -> DataSet:
    """The problems of ``source``: a name in ``HUB``, or the path of a file of JSON lines.

    Each line needs a ``question`` and an ``answer``; an ``id`` is optional. Raises InputError where there is no
    such source or nothing in it can be used, and for lines that cannot be, unless ``skip_bad`` leaves them out.
    """
    hub = HUB.get(source)
    where, kind = (source, "row") if hub else (str(Path(source)), "line")
    problems: list[Question] = []
    seen: dict[str, int] = {}
    bad: list[str] = []
    for number, read in _hub_rows(source, hub) if hub else _lines(Path(source)):
        try:
            problem = read()
            if not (problem.answer or "").strip():
                raise InputError('there is no "answer"')
            if problem.id in seen:
                raise InputError(f"id {problem.id!r} is also the id of {kind} {seen[problem.id]}")
        except InputError as error:
            bad.append(f"{kind} {number}: {str(error).removeprefix(f'{where}, {kind} {number}: ')}")
            continue
        seen[problem.id] = number
        problems.append(problem)
    _require(where, kind, problems, bad, skip_bad)
    return DataSet(source if hub else Path(source).stem, tuple(problems), digest(problems), tuple(bad))


def digest(problems: Sequence[Question]) -> str:
    """A sha256 over ids, questions and answers, in order."""
    found = hashlib.sha256()
    for problem in problems:
        found.update(repr((problem.id, problem.question, problem.answer)).encode())
    return found.hexdigest()


def _require(source: str, kind: str, problems: Sequence[Question], bad: Sequence[str], skip_bad: bool) -> None:
    """Raise InputError unless there are problems to go on with."""
    if bad and not (skip_bad and problems):
        shown = "; ".join(bad[:SHOWN]) + (f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")
        remedy = "correct them, or go on without them with --skip-bad" if problems else "none is left; correct the file"
        count = f"{len(bad)} {kind}{'s' if len(bad) > 1 else ''}"
        raise InputError(f"{source} has {count} that cannot be used: {shown}; {remedy}")
    if not problems:
        raise InputError(f'{source} holds no problems; give JSON lines with a "question" and an "answer" each')


def _lines(path: Path) -> Iterator[tuple[int, _Read]]:
    if not path.exists():
        raise InputError(
            f"{path} is neither a file nor the name of a data set; give JSON lines, or one of {', '.join(HUB)}"
        )
    for number, line in numbered_lines(path):
        yield number, partial(parse_question, line, number, path)


def _hub_rows(name: str, hub: HubSet) -> Iterator[tuple[int, _Read]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            f"{name} comes from the Hugging Face hub, for which the package datasets is missing; "
            "pip install 'edge-reasoning-runtime[bench]', or give a file of JSON lines"
        ) from error
    try:
        rows = load_dataset(hub.path, hub.config, split="test")
    except Exception as error:  # what the hub's client, its HTTP library and Arrow raise has no common base
        summary = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name} cannot be downloaded from the hub as {hub.path} ({type(error).__name__}: {summary}); check the "
            'network, or download it elsewhere and give it as JSON lines with a "question" and an "answer" each'
        ) from error
    missing = [column for column in hub.columns if column not in rows.column_names]
    if missing:
        raise InputError(
            f"{hub.path} has no column {missing[0]!r} (it has {', '.join(rows.column_names)}); "
            "give the problems as a file of JSON lines"
        )
    for number, row in enumerate(rows, 1):
        yield number, partial(_checked, hub, row, number - 1)


def _checked(hub: HubSet, row: Mapping[str, Any], index: int) -> Question:
    problem = hub.read(row, index)
    return Question(problem.id, checked_question(problem.question), problem.answer)
