"""What the catalogue says of one model, and reading it from TOML.

Every error is one sentence that names the file, the entry and the key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from edge_tts.errors import InputError
from edge_tts.files.typed import typed
from edge_tts.packs.sources import HubFile, Source, WheelParts
from edge_tts.runtimes.config import PolicyShape

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_Text = Annotated[str, Meta(min_length=1)]
_AtLeastOne = Annotated[int, Meta(ge=1)]
_NotNegative = Annotated[int, Meta(ge=0)]
_Percent = Annotated[float, Meta(ge=0, le=100)]


@dataclass(frozen=True)
class Measurement:
    """One measured figure: how often a model was right in one format."""

    task: _Text
    problems: _AtLeastOne
    samples: _AtLeastOne
    """Samples of each problem."""
    single: _Percent
    """Percent of samples that were right."""
    majority: _Percent | None = None
    """Percent of problems whose majority was right."""
    majority_of: _AtLeastOne | None = None
    """Samples that voted."""
    tokens: Annotated[float, Meta(ge=0)] | None = None
    """Tokens of one sample, on average."""
    note: _Text | None = None


@dataclass(frozen=True)
class GoodFormat:
    """A format of reasoning a model is known to follow."""

    name: _Text
    examples: bool = False
    """Whether the model computes better when worked examples are shown; only looked at for ``text``."""
    measured: tuple[Measurement, ...] = ()
    """Empty: not measured here."""


@dataclass(frozen=True)
class SuggestedSampling:
    """How to draw tokens from a model unless the user says otherwise."""

    temperature: Annotated[float, Meta(ge=0, le=10)]
    """0 is greedy; otherwise above 0."""
    top_k: _NotNegative = 0
    """0 keeps the whole vocabulary."""
    top_p: Annotated[float, Meta(ge=0.01, le=1)] = 1.0
    """1 cuts nothing."""


@dataclass(frozen=True, kw_only=True)
class _AsStated:
    """The keys of an entry's table that are fields of :class:`Entry` as they are."""

    title: _Text
    licence: _Text
    """SPDX expression, or the licence's name."""
    licence_note: _Text | None = None
    file: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]+[.]gguf$")]
    size: _AtLeastOne
    """Bytes of the file: exact where ``sha256`` is pinned, otherwise as last seen."""
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    """None: the hub's own sha256 is checked instead."""
    formats: Annotated[tuple[GoodFormat, ...], Meta(min_length=1)]
    measured_on: _Text | None = None
    """Where the measured figures are from; None without any."""
    sampling: SuggestedSampling
    quality: Annotated[int, Meta(ge=0, le=100)]
    """This project's order of preference, 0 to 100; no measurement, only compared with others."""


@dataclass(frozen=True, kw_only=True)
class Entry(_AsStated):
    """One catalogued model."""

    name: str
    """What ``--model`` takes: lower case, no slash."""
    shape: PolicyShape
    """Enough to plan memory before the download."""
    sources: tuple[Source, ...]
    """Where to fetch it, in order."""

    @property
    def measured(self) -> bool:
        """Whether a figure of this model was measured with this runtime."""
        return any(format.measured for format in self.formats)


@dataclass(frozen=True, kw_only=True)
class _Table(_AsStated):
    """The keys of an entry's table."""

    parameters: _AtLeastOne
    layers: _AtLeastOne
    kv_heads: _AtLeastOne
    head_dim: _AtLeastOne
    hidden: _AtLeastOne
    vocabulary: _AtLeastOne
    trained_context: _AtLeastOne
    lookup_bytes: _NotNegative = 0
    sources: Annotated[tuple[Mapping[str, Any], ...], Meta(min_length=1)]


@dataclass(frozen=True)
class _OnHub:
    """The keys of a source on the hub."""

    hub: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    file: _Text
    revision: _Text | None = None


def read_entry(file: Path, name: str, raw: object) -> Entry:
    """The entry that ``raw``, a table of the catalogue ``file``, describes. Raises InputError."""
    where = f"{file}, models.{name}"
    if not _NAME.fullmatch(name):
        raise InputError(f"{where}: the name is {name!r}; use lower-case letters, digits, '.', '-' and '_'")
    table = typed(_Table, raw, where, InputError)
    sizes = {field.name for field in dataclasses.fields(PolicyShape)} - {"file_bytes"}
    entry = Entry(
        **{field.name: getattr(table, field.name) for field in dataclasses.fields(_AsStated)},
        name=name,
        shape=PolicyShape(file_bytes=table.size, **{size: getattr(table, size) for size in sizes}),
        sources=tuple(_source(source, f"{where}.sources[{i}]", table.sha256) for i, source in enumerate(table.sources)),
    )
    if entry.measured and not entry.measured_on:
        raise InputError(f"{where}: measured_on is missing; say where the measured figures are from")
    return entry


def _source(raw: Mapping[str, Any], where: str, sha256: str | None) -> Source:
    if "package" not in raw:
        source = typed(_OnHub, raw, where, InputError)
        return HubFile(source.hub, source.file, source.revision)
    if sha256 is None:
        raise InputError(f"{where}: the package {raw['package']!r} cannot be checked; add the entry's sha256")
    return typed(WheelParts, raw, where, InputError)
