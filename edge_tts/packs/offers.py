"""The models that a user can choose from by name: those of the catalogue, and the packs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_tts.packs import model_files
from edge_tts.packs.bare_model import least_memory_mb
from edge_tts.packs.catalogue import entries
from edge_tts.packs.manifest import POLICY
from edge_tts.packs.pack import DEFAULT, find_pack, pack_names


@dataclass(frozen=True)
class Offer:
    """A model to choose."""

    name: str
    """What ``--model`` takes."""
    is_here: bool
    """Whether it is on this machine."""
    size: int
    """Bytes of its file."""


def offers(memory_mb: float = math.inf, built_in: str | None = None) -> tuple[Offer, ...]:
    """The models that fit ``memory_mb``: what is on this machine first, of that the better first, packs behind.

    ``built_in`` is the folder of the built-in pack where it is not in its usual place. Raises InputError for a
    catalogue of the user's that cannot be read, PackError for a damaged pack.
    """
    fitting = [entry for entry in entries().values() if least_memory_mb(entry) <= memory_mb]
    best_first = sorted(fitting, key=lambda entry: -entry.quality)
    known = [Offer(entry.name, model_files.find(entry) is not None, entry.size) for entry in best_first]
    packs = {DEFAULT: find_pack(built_in)}
    packs |= {name: find_pack(name) for name in pack_names() if name != DEFAULT}
    own = [Offer(name, True, pack.files[POLICY].bytes) for name, pack in packs.items()]
    return (*(offer for offer in known if offer.is_here), *own, *(offer for offer in known if not offer.is_here))
