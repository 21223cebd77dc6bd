"""Models known by name: reading the catalogue, what a ``--model`` reference means, and which model is the default.

The catalogue is ``catalogue.toml`` beside this module. A user's own ``catalogue.toml`` beside the user's profiles
folder is merged over it, key by key: it adds models, or changes single keys of known ones.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError
from edge_tts.files.folders import profiles_folder
from edge_tts.packs.catalogue_entry import Entry, read_entry
from edge_tts.packs.model_files import find, split_parts
from edge_tts.packs.sources import HubFile

__all__ = ["Entry", "HubFile", "LocalModel", "Model", "choose_default", "entries", "resolve", "rough_need_mb"]

BUILT_IN = Path(__file__).parent / "catalogue.toml"
MIB = 2**20

ABOUT_THE_SAME = 10
"""Points of ``Entry.quality`` within which a model on this machine is preferred to a download."""

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?::([^:]+))?")
_MAGIC = b"GGUF"


@dataclass(frozen=True)
class LocalModel:
    """A GGUF given by its path."""

    path: Path
    """The file, or the first part of a split one."""
    parts: tuple[Path, ...]
    """All files, in order."""


Model = LocalModel | Entry | HubFile
"""What a ``--model`` reference can mean."""


def user_catalogue() -> Path:
    """Where a user's own catalogue is read from, if there is one."""
    return profiles_folder().parent / "catalogue.toml"


def entries() -> dict[str, Entry]:
    """The catalogue by name, the user's own entries included. Raises InputError for a file that cannot be read."""
    raw = _tables(BUILT_IN)
    owner = dict.fromkeys(raw, BUILT_IN)
    if user_catalogue().exists():
        for name, table in _tables(user_catalogue()).items():
            known = raw.get(name)
            raw[name] = {**known, **table} if known and isinstance(table, Mapping) else table
            owner[name] = user_catalogue()
    return {name: read_entry(owner[name], name, table) for name, table in raw.items()}


def _tables(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the catalogue {file} cannot be read: {error}; correct it or delete it") from error
    models = content.pop("models", {})
    if content or not isinstance(models, dict):
        wrong = repr(next(iter(content))) if content else "'models'"
        raise InputError(f"{file}: {wrong} is not a table of models; every entry is a table [models.NAME]")
    return models


def resolve(reference: str) -> Model:
    """What ``reference`` means: a catalogue name, the path of a GGUF, or a hub id ``owner/repo[:file]``.

    A catalogue name wins over a file of the same name: give that as ``./NAME``. After the colon of a hub id comes a
    file's name or a part of one, such as ``Q4_K_M``. Nothing is fetched. Raises InputError for anything else.
    """
    text = reference.strip()
    known = entries()
    if entry := known.get(text.lower()):
        return entry
    path = Path(text).expanduser()
    if text and path.exists():
        return _local(path)
    if match := _HUB_ID.fullmatch(text):
        if match[2] is not None or not text.lower().endswith(".gguf"):
            return HubFile(match[1], match[2])
    elif "://" in text:
        raise InputError(f"the model {reference!r} is an address; give a hub id as owner/repo:file, or a file's path")
    raise InputError(f"no model {reference!r}: {_advice(text, known)}")


def _local(path: Path) -> LocalModel:
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.gguf"))
        remedy = f"give one of its files: {', '.join(inside[:8])}" if inside else "give the path of a GGUF file"
        raise InputError(f"the model {path} is a folder; {remedy}")
    parts = split_parts(path.absolute())
    for part in parts:
        try:
            with part.open("rb") as file:
                begin = file.read(len(_MAGIC))
        except OSError as error:
            raise InputError(f"the model {part} cannot be read ({error.strerror}); check its permissions") from error
        if begin != _MAGIC:
            raise InputError(f"the model {part} is not a GGUF file: it begins with {begin!r}; give a GGUF")
    return LocalModel(parts[0], parts)


def _advice(text: str, known: Mapping[str, Entry]) -> str:
    by_file = {entry.file.lower(): name for name, entry in known.items()}
    wanted = Path(text).name.lower()
    if name := by_file.get(wanted):
        return f"there is no such file; its name in the catalogue is {name}"
    near = difflib.get_close_matches(text.lower(), known, 3, 0.5)
    if text.lower().endswith(".gguf"):
        return "there is no such file; check the path"
    names = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(known)}"
    return f"{names}; otherwise give the path of a GGUF, or a hub id owner/repo[:file]"


def rough_need_mb(entry: Entry) -> float:
    """Memory in MiB that ``entry`` needs at least, about: its file, a cache of keys and values, the process."""
    return entry.size / MIB * 1.15 + 250


def choose_default(
    memory_mb: float, needed_mb: Callable[[Entry], float] = rough_need_mb, downloads: bool = True
) -> tuple[Entry | None, str]:
    """The model to use where the user names none, and the reason in a few words; None where no model fits.

    That is the best one whose ``needed_mb`` is within ``memory_mb``. One on this machine wins over a download of about
    the same quality. Only models measured here are fetched unasked; without ``downloads`` none is.
    """
    fitting = [entry for entry in entries().values() if needed_mb(entry) <= memory_mb]
    here = [entry for entry in fitting if find(entry)]
    offered = [entry for entry in fitting if downloads and entry.measured]
    best_here = max(here, key=_order, default=None)
    best_offered = max(offered, key=_order, default=None)
    if best_here and (not best_offered or best_here.quality + ABOUT_THE_SAME >= best_offered.quality):
        return best_here, f"the best on this machine of the models that fit {memory_mb:.0f} MB"
    if best_offered:
        size = best_offered.size / 1e6
        return best_offered, f"the best measured here that fits {memory_mb:.0f} MB; a download of {size:.0f} MB"
    return None, f"no catalogued model {'' if downloads else 'on this machine '}fits {memory_mb:.0f} MB"


def _order(entry: Entry) -> tuple[int, bool, int]:
    return entry.quality, entry.measured, -entry.size
