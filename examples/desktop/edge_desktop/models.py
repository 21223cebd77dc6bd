"""Which models the user can choose, and what a choice means on this machine. Does not use Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_tts import PackError
from edge_tts.packs import model_files
from edge_tts.packs.bare_model import default_model, find_model
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.pack import DEFAULT, Pack, find_pack, is_assembled

AUTOMATIC = ""
"""The reference of what the library would take by itself."""
BUILT_IN = DEFAULT


@dataclass(frozen=True)
class Chosen:
    """The model that a choice means."""

    pack: Pack
    reason: str
    """Why it is this one; empty where the user named it."""
    is_here: bool
    """Whether it can be loaded without a download."""
    size: int
    """Bytes of the download; 0 where there is none."""
    begun: int
    """Bytes that a cancelled download has left."""


def choose(reference: str, memory_mb: float, built_in: str | None = None) -> Chosen:
    """The model that ``reference`` means below a cap of ``memory_mb``; nothing is fetched.

    Raises InputError or PackError where there is no such model.
    """
    if reference == BUILT_IN:
        return _chosen(find_pack(built_in), "")
    if reference != AUTOMATIC:
        return _chosen(find_model(reference), "")
    try:
        return _chosen(*default_model(memory_mb, None))
    except PackError:  # no model fits, and the built-in pack is not in its usual place
        if built_in is None:
            raise
        return _chosen(find_pack(built_in), "no catalogued model fits")


def is_file(reference: str) -> bool:
    """Whether ``reference`` is the path of a GGUF and no name."""
    return reference != AUTOMATIC and Path(reference).is_absolute()


def _chosen(pack: Pack, reason: str) -> Chosen:
    if pack.format == "equations":
        is_here = pack.source is None or is_assembled(pack)
        size = 0 if is_here or pack.recipe is None else pack.recipe.base.bytes
        return Chosen(pack, reason, is_here, size, 0)
    if pack.gguf is not None or pack.model is None:
        return Chosen(pack, reason, True, 0, 0)
    size = pack.model.size if isinstance(pack.model, Entry) else 0
    return Chosen(pack, reason, False, size, model_files.partly(pack.model))
