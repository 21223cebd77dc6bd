"""Device profiles: what a device allows, how fast it is expected to be, and the source of each figure.

A profile is one TOML file. The built-in profiles are stored beside this module. A user's own profile in
:func:`edge_tts.files.folders.profiles_folder` takes precedence over a built-in one of the same name.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_tts.errors import InputError
from edge_tts.files.atomic import write_text
from edge_tts.files.folders import profiles_folder
from edge_tts.files.typed import typed
from edge_tts.profiles.detect import cores, detected, memory_limit_mb
from edge_tts.profiles.gpu import Gpu, usable_gpus

__all__ = ["Calibration", "DecodeSpeed", "Profile", "Speeds", "detect", "for_this_machine", "load", "names", "save"]

_BUILT_IN = Path(__file__).parent
_WITHOUT_GPU = "laptop-cpu"
_FIGURES = (
    *("memory_mb", "deadline_s", "watts", "threads", "gpu", "gpu_memory_mb"),
    *("speeds.decode", "speeds.prefill", "speeds.verifier"),
)
"""Each of these needs an entry in the ``sources`` table of a profile that states it."""
_GPU_SHARE = 0.9
"""Of the memory that is free on a GPU, how much may be used: its driver and other programs need some."""
FIXED_COST = 220_000_000
"""What a token costs at any size of model (activations, attention, the vocabulary), in weights. From one machine's
speeds with 135M, 0.5B and 1.5B models, which this brings within 30% of each other at widths 1 to 32."""
VERIFIER_PARAMETERS = 14_161_537
"""The size of smol-math's verifier, whose speed the built-in profiles state."""

_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]


@dataclass(frozen=True)
class DecodeSpeed:
    """Decoding speed at one width and context."""

    width: _AtLeastOne
    """Sequences decoded together."""
    context: _AtLeastOne
    """Approximate length of each sequence, in tokens."""
    tokens_per_s: _Positive
    """Sum over all sequences."""


@dataclass(frozen=True)
class Speeds:
    """How fast a policy of ``parameters`` weights and a verifier of ``verifier_parameters`` weights run."""

    parameters: _AtLeastOne
    decode: Annotated[tuple[DecodeSpeed, ...], msgspec.Meta(min_length=1)]
    prefill: _Positive
    """Prompt tokens/s."""
    verifier: _Positive
    """Verifier tokens/s."""
    verifier_parameters: _AtLeastOne = VERIFIER_PARAMETERS

    def decode_at(self, width: int, context: int, parameters: int) -> float:
        """Tokens/s of a policy of ``parameters`` weights.

        Taken from the points of the nearest context: linear in log2(width) between them, constant beyond
        them, and inversely proportional to ``parameters`` and ``FIXED_COST`` together.
        """
        nearest = min((p.context for p in self.decode), key=lambda c: abs(math.log(c / context)))
        points = sorted((p.width, p.tokens_per_s) for p in self.decode if p.context == nearest)
        return _interpolate(points, width) * (self.parameters + FIXED_COST) / (parameters + FIXED_COST)

    def prefill_at(self, parameters: int) -> float:
        """Prompt tokens/s for a policy of ``parameters`` weights."""
        return self.prefill * self.parameters / parameters

    def verifier_at(self, parameters: int) -> float:
        """Verifier tokens/s for a verifier of ``parameters`` weights."""
        return self.verifier * self.verifier_parameters / parameters


@dataclass(frozen=True)
class Calibration:
    """Speeds measured on this device, and when and with what they were measured."""

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
    """Longest time for one answer, in seconds."""
    watts: float
    """Power drawn while working."""
    threads: int | None
    """Compute threads; None is one per physical core."""
    gpu: bool
    """Whether the stated speeds are those of a policy on a GPU."""
    stated: Speeds
    """The speeds in the profile file, before calibration."""
    sources: Mapping[str, str]
    """The source of each figure, by key."""
    calibration: Calibration | None = None
    gpu_memory_mb: float | None = None
    """Cap on the memory of a GPU that has its own, in MiB; None where the policy takes memory of the machine."""

    @property
    def speeds(self) -> Speeds:
        """The measured speeds where there are any, else the stated ones."""
        return self.calibration.speeds if self.calibration else self.stated


@dataclass(frozen=True)
class _ProfileFile:
    """The keys of a profile file."""

    description: str
    memory_mb: _Positive
    deadline_s: _Positive
    watts: _Positive
    gpu: bool
    speeds: Speeds
    sources: Mapping[str, str]
    threads: _AtLeastOne | None = None
    gpu_memory_mb: _Positive | None = None
    calibrated: Calibration | None = None


def names() -> tuple[str, ...]:
    """Names of the built-in profiles and the user's own, sorted."""
    folders = (_BUILT_IN, profiles_folder())
    return tuple(sorted({path.stem for folder in folders for path in folder.glob("*.toml")}))


def load(name_or_path: str | Path) -> Profile:
    """Load a profile by its name, or from a path that ends in ``.toml``.

    Raises InputError where there is no such profile or it is not valid.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if path.name != str(name_or_path):
            raise InputError(
                f"{str(name_or_path)!r} is neither the name of a profile nor a .toml file; see `profile list`"
            )
        candidates = (folder / f"{path.name}.toml" for folder in (profiles_folder(), _BUILT_IN))
        found = next((c for c in candidates if c.is_file()), None)
        if found is None:
            raise InputError(f"there is no profile {path.name!r}; choose one of {', '.join(names())}")
        path = found
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise InputError(f"cannot read the profile {path}: {error}; correct or delete the file") from error
    return parse(data, path)


def detect() -> tuple[Profile, str]:
    """The profile that fits this machine, and the reason.

    Its memory cap is at most half of the memory, and its threads at most the cores, that this process may use. It has
    a GPU where the installed llama.cpp computes on one.
    """
    name, reason = detected()
    profile, reason = _with_gpu(load(name), reason, usable_gpus())
    half = memory_limit_mb() / 2
    if profile.memory_mb > half:
        reason += (
            f"; its memory cap is lowered from {profile.memory_mb:.0f} to {half:.0f} MB, half of this machine's memory"
        )
        profile = replace(profile, memory_mb=float(math.floor(half)))
    if profile.threads is not None and profile.threads > (allowed := cores()):
        reason += f"; {allowed} threads instead of {profile.threads}, since this process may use no more cores"
        profile = replace(profile, threads=allowed)
    if profile.calibration:
        reason += f"; calibrated on this machine on {profile.calibration.date}"
    return profile, reason


def for_this_machine(profile: Profile) -> Profile:
    """``profile`` with the memory of the GPU that is here: of another device it states what this one may not have."""
    if not profile.gpu:
        return profile
    own = _own_memory(usable_gpus())
    stated = profile.gpu_memory_mb
    return replace(profile, gpu_memory_mb=min(own, stated) if own and stated else own)


def without_gpu(profile: Profile) -> Profile:
    """``profile`` where the policy stays on the CPU: as fast as a laptop's, until that is measured."""
    laptop = load(_WITHOUT_GPU)
    return replace(
        profile, gpu=False, gpu_memory_mb=None, stated=laptop.stated, watts=laptop.watts, calibration=laptop.calibration
    )


def _own_memory(gpus: Sequence[Gpu]) -> float | None:
    """How much of its own memory the first of ``gpus`` may be asked for, in MiB; None where it has none."""
    if not gpus or gpus[0].shares_memory:
        return None
    return float(math.floor(_GPU_SHARE * gpus[0].free_mb))


def _with_gpu(profile: Profile, reason: str, gpus: Sequence[Gpu]) -> tuple[Profile, str]:
    """``profile`` and ``reason`` of a machine on which llama.cpp can use ``gpus``."""
    if not gpus:
        if not profile.gpu:
            return profile, reason
        return load(_WITHOUT_GPU), f"{reason}; the installed llama.cpp does not use it, so this is {_WITHOUT_GPU}"
    gpu, own = gpus[0], _own_memory(gpus)
    memory = "" if own is None else f" and {own:.0f} MB of its memory"
    reason = f"{reason}; llama.cpp uses the GPU {gpu.name} by {gpu.backend}{memory}"
    return replace(profile, gpu=True, gpu_memory_mb=own), reason


def parse(data: Mapping[str, Any], path: Path) -> Profile:
    """Check the content of a profile file. Raises InputError that names file, key and value."""
    content = typed(_ProfileFile, data, str(path), InputError)
    profile = Profile(
        name=path.stem,
        description=content.description,
        memory_mb=content.memory_mb,
        deadline_s=content.deadline_s,
        watts=content.watts,
        threads=content.threads,
        gpu=content.gpu,
        stated=content.speeds,
        sources=content.sources,
        calibration=content.calibrated,
        gpu_memory_mb=content.gpu_memory_mb,
    )
    for figure in _FIGURES:
        if figure not in profile.sources and getattr(profile, figure, figure) is not None:
            raise InputError(f"{path}: sources has no entry {figure!r}; add one that says where the figure comes from")
    return profile


def save(profile: Profile, path: Path) -> None:
    """Write ``profile`` to ``path`` all or nothing; create the folder.

    Raises ResourceError where the disk is full, InputError where the file cannot be written.
    """
    write_text(path, "\n".join(_toml_lines(profile)) + "\n")


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
    if profile.gpu_memory_mb is not None:
        lines.append(f"gpu_memory_mb = {profile.gpu_memory_mb!r}")
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
        f"verifier_parameters = {speeds.verifier_parameters}",
    ]


def _quoted(text: str) -> str:
    """A TOML basic string, in which all of JSON's escapes are valid."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
