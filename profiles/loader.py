"""Device profiles: what a device allows, how fast it is expected to be, and where each figure is from.

A profile is one TOML file. The built-in ones lie beside this module; the user's own in
:func:`edge_tts.files.folders.profiles_folder` take precedence over a built-in one of the same name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge_tts.errors import EdgeError, InputError, ResourceError
from edge_tts.files.folders import profiles_folder
from edge_tts.profiles.detect import detected, memory_limit_mb

__all__ = ["Calibration", "DecodeSpeed", "Profile", "Speeds", "detect", "load", "names", "parse", "save"]

_BUILT_IN = Path(__file__).parent
_FIGURES = ("memory_mb", "deadline_s", "watts", "threads", "gpu", "speeds.decode", "speeds.prefill", "speeds.verifier")
"""Every one of these must have an entry in the ``sources`` table of a profile that states it."""


@dataclass(frozen=True)
class DecodeSpeed:
    """One measured or stated point."""

    width: int
    """Sequences decoded together."""
    context: int
    """Tokens each sequence holds, about."""
    tokens_per_s: float
    """Of all sequences together."""


@dataclass(frozen=True)
class Speeds:
    """How fast a policy of ``parameters`` weights and a 22M-parameter verifier run."""

    parameters: int
    decode: tuple[DecodeSpeed, ...]
    prefill: float
    """Prompt tokens/s."""
    verifier: float
    """Verifier tokens/s."""

    def decode_at(self, width: int, context: int, parameters: int) -> float:
        """Tokens/s at ``width``: linear in log2(width) between the points of the nearest context,
        flat beyond them, and inversely proportional to the policy's size."""
        nearest = min((p.context for p in self.decode), key=lambda c: abs(math.log(c / context)))
        points = sorted((p.width, p.tokens_per_s) for p in self.decode if p.context == nearest)
        return _interpolate(points, width) * self.parameters / parameters

    def prefill_at(self, parameters: int) -> float:
        """Prompt tokens/s for a policy of ``parameters`` weights."""
        return self.prefill * self.parameters / parameters


@dataclass(frozen=True)
class Calibration:
    """Speeds measured on this device, and with what."""

    speeds: Speeds
    date: str
    """ISO 8601."""
    machine: str
    pack: str


@dataclass(frozen=True)
class Profile:
    """What a device allows and how fast it is."""

    name: str
    description: str
    memory_mb: float
    """Cap on the peak resident memory of the process, in MiB."""
    deadline_s: float
    """Longest time for one answer."""
    watts: float
    """Power drawn while working."""
    threads: int | None
    """Compute threads; None is one per physical core."""
    gpu: bool
    """Whether the speeds assume that the policy runs on a GPU."""
    stated: Speeds
    """Speeds as the profile states them."""
    sources: Mapping[str, str]
    """Where each figure is from."""
    calibration: Calibration | None = None

    @property
    def speeds(self) -> Speeds:
        """The measured speeds where there are any, else the stated ones."""
        return self.calibration.speeds if self.calibration else self.stated


def names() -> tuple[str, ...]:
    """Names that :func:`load` knows, the user's own included, sorted."""
    folders = (_BUILT_IN, profiles_folder())
    return tuple(sorted({path.stem for folder in folders for path in folder.glob("*.toml")}))


def load(name_or_path: str | Path) -> Profile:
    """Load a profile by name, or from a path that ends in ``.toml``.

    Raises InputError where there is none, or where it is not valid.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if path.name != str(name_or_path):
            raise InputError(f"{str(name_or_path)!r} is neither a profile's name nor a .toml file; see `profile list`")
        candidates = (folder / f"{path.name}.toml" for folder in (profiles_folder(), _BUILT_IN))
        found = next((c for c in candidates if c.is_file()), None)
        if found is None:
            raise InputError(f"there is no profile {path.name!r}; known are {', '.join(names())}")
        path = found
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the profile {path}: {error}; correct or delete the file") from error
    return parse(data, path)


def detect() -> tuple[Profile, str]:
    """The profile that fits this machine, and why. Its memory cap is at most half of the memory here."""
    name, reason = detected()
    profile = load(name)
    half = memory_limit_mb() / 2
    if profile.memory_mb > half:
        reason += f"; its memory cap is lowered from {profile.memory_mb:.0f} to {half:.0f} MB, half of what is here"
        profile = replace(profile, memory_mb=float(math.floor(half)))
    if profile.calibration:
        reason += f"; calibrated here on {profile.calibration.date}"
    return profile, reason


def parse(data: Mapping[str, Any], path: Path) -> Profile:
    """Validate the content of a profile file. Raises InputError naming file, key and value."""
    top = _Table(data, path, "")
    profile = Profile(
        name=path.stem,
        description=top.text("description"),
        memory_mb=top.number("memory_mb"),
        deadline_s=top.number("deadline_s"),
        watts=top.number("watts"),
        threads=top.whole("threads") if "threads" in data else None,
        gpu=top.flag("gpu"),
        stated=_speeds(top.table("speeds")),
        sources={str(key): str(value) for key, value in top.table("sources").data.items()},
        calibration=_calibration(top.table("calibrated")) if "calibrated" in data else None,
    )
    top.only({"description", "memory_mb", "deadline_s", "watts", "threads", "gpu", "speeds", "sources", "calibrated"})
    for figure in _FIGURES:
        if figure not in profile.sources and (figure != "threads" or profile.threads is not None):
            raise InputError(f"{path}: sources has no entry {figure!r}; say where the figure is from")
    return profile


def save(profile: Profile, path: Path) -> None:
    """Write ``profile`` to ``path`` all or nothing, making its folder.

    Raises ResourceError where the disk is full, InputError where the file cannot be written.
    """
    text = "\n".join(_toml_lines(profile)) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as out:
            temporary = Path(out.name)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as error:
        kind: type[EdgeError] = ResourceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else InputError
        raise kind(f"cannot write the profile {path}: {error.strerror}; choose another folder or free space") from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _speeds(table: _Table) -> Speeds:
    table.only({"parameters", "decode", "prefill", "verifier"})
    points = table.data.get("decode")
    if not isinstance(points, list) or not points or not all(isinstance(p, dict) for p in points):
        raise table.error("decode", "a list of {width, context, tokens_per_s} tables")
    decode = []
    for i, point in enumerate(points):
        entry = _Table(point, table.path, f"{table.prefix}decode[{i}].")
        entry.only({"width", "context", "tokens_per_s"})
        decode.append(DecodeSpeed(entry.whole("width"), entry.whole("context"), entry.number("tokens_per_s")))
    return Speeds(table.whole("parameters"), tuple(decode), table.number("prefill"), table.number("verifier"))


def _calibration(table: _Table) -> Calibration:
    table.only({"date", "machine", "pack", "speeds"})
    return Calibration(_speeds(table.table("speeds")), table.text("date"), table.text("machine"), table.text("pack"))


@dataclass(frozen=True)
class _Table:
    """One table of a profile file, with reading that checks."""

    data: Mapping[str, Any]
    path: Path
    prefix: str

    def error(self, key: str, wanted: str) -> InputError:
        found = repr(self.data[key]) if key in self.data else "nothing"
        return InputError(f"{self.path}: {self.prefix}{key} must be {wanted}, found {found}; correct the file")

    def number(self, key: str) -> float:
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(key, "a number above 0")
        return float(value)

    def whole(self, key: str) -> int:
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "a whole number of at least 1")
        return value

    def flag(self, key: str) -> bool:
        value = self.data.get(key)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str):
            raise self.error(key, "a text")
        return value

    def table(self, key: str) -> _Table:
        value = self.data.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "a table")
        return _Table(value, self.path, f"{self.prefix}{key}.")

    def only(self, known: Iterable[str]) -> None:
        for key in self.data:
            if key not in known:
                raise InputError(
                    f"{self.path}: unknown key {self.prefix}{key} = {self.data[key]!r}; "
                    f"known are {', '.join(sorted(known))}"
                )


def _interpolate(points: list[tuple[int, float]], width: int) -> float:
    if width <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if width <= right:
            share = math.log(width / left) / math.log(right / left)
            return low + share * (high - low)
    return points[-1][1]


def _toml_lines(profile: Profile) -> list[str]:
    lines = [
        f"description = {_quoted(profile.description)}",
        f"memory_mb = {profile.memory_mb!r}",
        f"deadline_s = {profile.deadline_s!r}",
        f"watts = {profile.watts!r}",
    ]
    if profile.threads is not None:
        lines.append(f"threads = {profile.threads}")
    lines.append(f"gpu = {str(profile.gpu).lower()}")
    lines += ["", "[speeds]", *_speed_lines(profile.stated)]
    lines += ["", "[sources]", *(f"{_quoted(key)} = {_quoted(text)}" for key, text in profile.sources.items())]
    if profile.calibration:
        known = profile.calibration
        lines += ["", "[calibrated]"]
        lines += [f"{key} = {_quoted(getattr(known, key))}" for key in ("date", "machine", "pack")]
        lines += ["", "[calibrated.speeds]", *_speed_lines(known.speeds)]
    return lines


def _speed_lines(speeds: Speeds) -> list[str]:
    points = (
        f"    {{ width = {p.width}, context = {p.context}, tokens_per_s = {p.tokens_per_s:.4g} }},"
        for p in speeds.decode
    )
    return [
        f"parameters = {speeds.parameters}",
        "decode = [",
        *points,
        "]",
        f"prefill = {speeds.prefill:.4g}",
        f"verifier = {speeds.verifier:.4g}",
    ]


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are all valid in it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
