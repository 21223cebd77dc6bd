"""What a study leaves behind: one JSON line for every solve, in a file that is only ever added to.

A study is a folder: ``study.json`` says what was asked for, ``records.jsonl`` holds the solves and
``samples.jsonl`` the pools of samples that the sampling strategies choose from.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, Self

from edge_tts.core import Usage
from edge_tts.errors import InputError
from edge_tts.files.atomic import disk_errors
from edge_tts.files.json_lines import read_lines

FORMAT = 1
DRAWN_FROM = "seed and problem id"
"""Kept in a study, since the samples of one made before, which began every problem with the same seed, are others."""
CONFIG = "study.json"
RECORDS = "records.jsonl"
SAMPLES = "samples.jsonl"

Key = tuple[str, str, int, int]
"""Problem id, strategy, budget, seed: what makes a record one of its kind."""


@dataclass(frozen=True)
class Record:
    """One solve."""

    id: str
    """Problem id."""
    strategy: str
    """As it was asked for, without the n that the budget sets: "majority", "beam:m=4"."""
    budget: int
    """Generations at most."""
    seed: int
    answer: str | None
    """None where nothing finished."""
    correct: bool
    stop_reason: str
    usage: Usage
    """Everything it cost. ``seconds`` is the machine's time, of which solves that share a batch each get a part, and
    not the time a lone caller would wait."""
    support: float = 0.0
    """Share of the (weighted) vote the answer got, in [0, 1]."""
    scores: tuple[float, ...] = ()
    """Step scores of the chosen trace; empty where nothing was scored."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What only some solvers can say, such as the difficulty bin of "auto" or the price of an endpoint's answer."""

    @property
    def key(self) -> Key:
        return self.id, self.strategy, self.budget, self.seed

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote. Raises KeyError or TypeError for anything else."""
        return cls(**{**row, "usage": Usage(**row["usage"]), "scores": tuple(row["scores"])})

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def read_records(path: Path) -> list[Record]:
    """All whole records of a file, or of its gzip where only that is there. Raises InputError naming a bad line."""
    if not path.exists() and _compressed(path).exists():
        path = _compressed(path)
    records = []
    try:
        for number, row in read_lines(path):
            try:
                records.append(Record.parse(row))
            except (KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not a record of a study ({error!r})") from error
    except (EOFError, BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is a damaged gzip file ({error}); restore it") from error
    return records


def _compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def open_study(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the study's folder with its configuration, or check that it was made with the same.

    ``config["made_on"]`` may differ: a study can go on on another machine. Raises InputError that
    shows every difference.
    """
    path = folder / CONFIG
    if _compressed(folder / RECORDS).exists():
        raise InputError(
            f"the records of {folder} are compressed; run `gunzip {_compressed(folder / RECORDS)}` to add to them, "
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
                "Choose another --out, or go back to those settings"
            )
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RECORDS).exists():
            raise InputError(
                f"{folder} has records but no {CONFIG}, so what they belong to is unknown; choose another --out"
            )
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(wanted, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a study. Raises InputError where ``folder`` holds none."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} holds no study ({path}: {error.strerror}); make one with `bench run --out`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore it or start the study anew") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not the configuration of a study of format {FORMAT}; use the release that made it")
    return config


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
