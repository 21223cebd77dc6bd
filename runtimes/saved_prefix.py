"""Keys and values of a fixed prompt on the disk, so that a new process need not evaluate it again.

They are of a format's instruction and examples; nothing of a user's text is in them. A file holds its tokens and a
checksum, and is named by what it depends on: the model's file, the cache's type and llama.cpp's version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edge_tts.errors import EdgeError
from edge_tts.files.atomic import building, exclusive, publish
from edge_tts.files.folders import cache_folder

MAGIC = b"EDGEPREFIX1"
LEAST_TOKENS = 64
"""A shorter prompt is evaluated sooner than read."""
KEPT = 6
"""Files that are kept; those used longest ago are deleted."""


def file_for(model: Path, kv_type: str, tokens: Sequence[int]) -> Path:
    """Where the state of ``tokens`` is kept. Raises OSError where ``model`` cannot be looked at."""
    stat = model.stat()
    version = importlib.metadata.version("llama-cpp-python")
    key = f"{model.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{kv_type}:{version}:{list(tokens)}"
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.kv"


def read(path: Path, tokens: Sequence[int]) -> bytes | None:
    """The state of ``tokens``; None where it is not there, damaged or of other tokens."""
    try:
        content = path.read_bytes()
        path.touch()
    except OSError:
        return None
    head, checksum = content[: len(MAGIC)], content[len(MAGIC) : len(MAGIC) + 32]
    rest = content[len(MAGIC) + 32 :]
    described = struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens)
    if head != MAGIC or hashlib.sha256(rest).digest() != checksum or not rest.startswith(described):
        return None
    return rest[len(described) :]


def write(path: Path, tokens: Sequence[int], state: bytes) -> None:
    """Keep ``state``; a disk that does not take it is no error, since it can be computed again."""
    rest = struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens) + state
    with suppress(OSError, EdgeError):
        with exclusive(path.parent), building(path.parent) as temporary:
            built = temporary / path.name
            built.write_bytes(MAGIC + hashlib.sha256(rest).digest() + rest)
            publish(built, path)
        kept = sorted(path.parent.glob("*.kv"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)
