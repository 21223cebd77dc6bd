"""Which models the user can choose, and what a choice means on this machine. Does not use Qt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edge_tts import BackendError, PackError
from edge_tts.packs import hub, model_files
from edge_tts.packs.bare_model import VARIABLE, default_model, find_model
from edge_tts.packs.catalogue import LocalModel, resolve
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.pack import DEFAULT, Pack, find_pack, is_ready, pack_names
from edge_tts.packs.sources import HubFile, UnavailableError

AUTOMATIC = ""
"""The reference of what the library would take by itself."""
BUILT_IN = DEFAULT


@dataclass(frozen=True)
class Chosen:
    """The model that a choice means."""

    name: str
    """Where there is no pack, what ``--model`` takes."""
    pack: Pack | None
    """None while a model of the hub is not on this machine: only its file tells what it is."""
    reason: str
    """Why it is this one; empty where the user named it."""
    is_here: bool
    """Whether it can be loaded without a download."""
    size: int
    """Bytes of the download; 0 where there is none, or the hub cannot be asked."""
    begun: int
    """Bytes that a cancelled download has left."""


def choose(reference: str, memory_mb: float, built_in: str | None = None) -> Chosen:
    """The model that ``reference`` means below a cap of ``memory_mb``; nothing is fetched.

    The hub is asked for the size of a model that is known by its hub id alone and is not here. Raises InputError or
    PackError where there is no such model.
    """
    named = reference or os.environ.get(VARIABLE, "")
    reason = f"{VARIABLE} names it" if reference == AUTOMATIC else ""
    if named == BUILT_IN:
        return _chosen(find_pack(built_in), reason)
    if named:
        model = None if named in pack_names() else resolve(named)
        if isinstance(model, HubFile) and model_files.find(model) is None:
            return Chosen(str(model), None, reason, False, _size(model), model_files.partly(model))
        return _chosen(find_model(named), reason)
    try:
        return _chosen(*default_model(memory_mb, None))
    except PackError:  # no model fits, and the built-in pack is not in its usual place
        if built_in is None:
            raise
        return _chosen(find_pack(built_in), "no catalogued model fits")


def reference_of(text: str) -> str:
    """The reference of what the user typed: a name, the path of a GGUF, or a hub id ``owner/repo[:file]``.

    Raises InputError where it is none of them.
    """
    if text.strip() in pack_names():
        return text.strip()
    model = resolve(text)
    if isinstance(model, LocalModel):
        return str(model.path)
    return model.name if isinstance(model, Entry) else str(model)


def is_file(reference: str) -> bool:
    """Whether ``reference`` is the path of a GGUF."""
    return reference != AUTOMATIC and Path(reference).is_absolute()


def is_own(reference: str) -> bool:
    """Whether ``reference`` is a file of the user's or a hub id, and no name that is listed anyway."""
    return is_file(reference) or "/" in reference


@lru_cache
def _size(model: HubFile) -> int:
    try:
        return hub.size(model)
    except UnavailableError as error:
        if error.kind is BackendError:
            return 0
        raise error.kind(str(error)) from error


def _chosen(pack: Pack, reason: str) -> Chosen:
    size = begun = 0
    if is_ready(pack):
        return Chosen(pack.name, pack, reason, True, size, begun)
    if pack.recipe is not None:
        size = pack.recipe.base.bytes
    elif isinstance(pack.model, Entry):
        size, begun = pack.model.size, model_files.partly(pack.model)
    return Chosen(pack.name, pack, reason, False, size, begun)
