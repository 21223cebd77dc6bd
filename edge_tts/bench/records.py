"""A study's folder: ``study.json`` has its settings, ``records.jsonl`` one line for every solve.

``samples.jsonl`` has the pools of samples that the sampling strategies choose from. Lines are only ever appended.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import Usage
from edge_tts.errors import InputError
from edge_tts.files.atomic import disk_errors, only_process, write_text
from edge_tts.files.json_lines import read_lines
from edge_tts.files.typed import typed
from edge_tts.questions.reading import Question

FORMAT = 1
DRAWN_FROM = "seed and problem id"
"""What random numbers come from; stored, because studies of an older release used the same seed for every problem."""
CONFIG = "study.json"
RECORDS = "records.jsonl"
SAMPLES = "samples.jsonl"
REPLAYED = "replayed"
"""In a study's settings: its records are a replay of its samples, so their seconds are not known."""

MOST = 1e30
"""Numbers in records are smaller."""

Key = tuple[str, str, int, int]
"""Problem id, strategy, budget and seed, which identify a record within its study."""


@dataclass(frozen=True)
class Record:
    """One solve."""

    id: str
    """Problem id."""
    strategy: str
    """As given on the command line; the budget sets n: "majority", "beam:m=4"."""
    budget: int
    """Generations at most."""
    seed: int
    answer: str | None
    """None where nothing finished."""
    correct: bool
    stop_reason: str
    usage: Usage
    """Everything it cost. Solves that share a batch share its ``seconds``, so a single caller would wait longer."""
    support: float = 0.0
    """Share of the (weighted) vote the answer got, in [0, 1]."""
    scores: tuple[float, ...] = ()
    """Step scores of the chosen trace; empty where nothing was scored."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Extra facts of some solvers, such as the difficulty bin of "auto" or the price of an endpoint's answer."""

    @property
    def key(self) -> Key:
        return self.id, self.strategy, self.budget, self.seed

    @classmethod
    def of(
        cls,
        problem: Question,
        strategy: str,
        budget: int,
        seed: int,
        answer: str | None,
        stop_reason: str,
        usage: Usage,
        support: float,
        scores: Sequence[float] = (),
        detail: Mapping[str, Any] | None = None,
    ) -> Self:
        """The record of a solve of ``problem``; says whether the answer is right."""
        correct = is_correct(answer, problem.answer or "")
        rounded = tuple(round(score, 5) for score in scores)
        key = (problem.id, strategy, budget, seed)
        return cls(*key, answer, correct, stop_reason, usage, round(support, 4), rounded, detail or {})

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote. Raises KeyError or TypeError for anything else."""
        return cls(**{**row, "usage": Usage(**row["usage"]), "scores": tuple(row["scores"])})

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def read_records(path: Path) -> list[Record]:
    """All whole records of a file, or of its gzip where only that is there. Raises InputError naming a bad line."""
    path = stored(path)
    records = []
    for number, row in read_lines(path):
        record = typed(Record, row, f"{path}, line {number}: not a record of a study", InputError)
        if wrong := _wrong_number(record):
            raise InputError(f"{path}, line {number}: not a record of a study: {wrong}; correct the file")
        records.append(record)
    return records


def _wrong_number(record: Record) -> str | None:
    """A clause on a number that nothing can be computed with; None where there is none."""
    counted = {name: record.detail.get(name, 0) for name in ("right_samples", "mean_score")}
    for name, value in {"budget": record.budget, "seed": record.seed, **vars(record.usage), **counted}.items():
        if not isinstance(value, int | float) or not -MOST < value < MOST:
            return f"{name} must be a number below {MOST:g}, found {reprlib.repr(value)}"
    return None


def stored(path: Path) -> Path:
    """``path``, or its gzip where only that is there."""
    return compressed(path) if not path.exists() and compressed(path).exists() else path


def compressed(path: Path) -> Path:
    """The gzip of ``path``."""
    return path.with_name(f"{path.name}.gz")


@contextmanager
def only_study(folder: Path) -> Iterator[None]:
    """Keep other processes from adding to the study in ``folder``, which need not exist; enter it before models load.

    Raises InputError where another process adds to it now, or nothing can be written there.
    """
    with ExitStack() as held:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.callback(_remove_empty, folder)
            held.enter_context(only_process(folder / CONFIG, folder))
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def open_study(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the study's folder with its configuration, or check that the folder has the same configuration.

    ``config["made_on"]`` may differ: another machine can resume a study. Raises InputError that shows every difference.
    """
    path = folder / CONFIG
    if compressed(folder / RECORDS).exists():
        raise InputError(
            f"the records of {folder} are compressed; run `gunzip {compressed(folder / RECORDS)}` to add to them, "
            "or choose another --out"
        )
    wanted = json.loads(json.dumps({"format": FORMAT, "drawn_from": DRAWN_FROM, **config}))
    if path.exists():
        found = read_config(folder)
        different = [
            f"{name} was {_brief(found.get(name))} and is now {_brief(wanted.get(name))}"
            for name in sorted(found.keys() | wanted.keys())
            if name != "made_on" and found.get(name) != wanted.get(name)
        ]
        if different:
            raise InputError(
                f"{folder} holds a study made with other settings: {'; '.join(different)}. "
                "Choose another --out, or use those settings"
            )
        return
    if (folder / RECORDS).exists():
        raise InputError(f"{folder} has records but no {CONFIG}, so their settings are unknown; choose another --out")
    write_text(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a study. Raises InputError where ``folder`` holds none."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} holds no study ({path}: {error.strerror}); make one with `bench run --out`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it or start the study anew") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not the configuration of a study of format {FORMAT}; use the release that made it")
    for name, kind, words in (("data", dict, "an object"), ("seeds", int, "a whole number")):
        if not isinstance(config.get(name, kind()), kind):
            raise InputError(f"{path} is damaged: {name} must be {words}, found {_brief(config[name])}; restore it")
    problems = config.get("data", {}).get("problems", 0)
    if not isinstance(problems, int):
        raise InputError(
            f"{path} is damaged: data.problems must be a whole number, found {_brief(problems)}; restore it"
        )
    return config


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
