"""Keys and values of a fixed prompt on the disk, so that a new process need not evaluate it again.

They are of a format's instruction and examples; nothing of a user's text is in them. A file holds its tokens and a
checksum, and is named by what it depends on: the model's file, the cache's type and number of sequences, and
llama.cpp's version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edge_tts.errors import EdgeError
from edge_tts.files.atomic import building, exclusive, publish
from edge_tts.files.folders import cache_folder
from edge_tts.runtimes.config import EngineConfig

MAGIC = b"EDGEPREFIX1"
CHECKSUM = hashlib.sha256().digest_size
LEAST_TOKENS = 64
"""A shorter prompt is evaluated sooner than read."""
KEPT = 12
"""Files that are kept; those used longest ago are deleted."""


def file_for(model: Path, engine: EngineConfig, tokens: Sequence[int]) -> Path:
    """Where the state of ``tokens`` is kept. Raises OSError where ``model`` cannot be looked at."""
    stat = model.stat()
    version = importlib.metadata.version("llama-cpp-python")
    made = f"{engine.kv_type}:{engine.width}:{version}"  # llama.cpp reads no state of another number of sequences
    key = f"{model.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{made}:{list(tokens)}"
    return cache_folder() / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.kv"


@contextmanager
def read(path: Path, tokens: Sequence[int]) -> Iterator[memoryview | None]:
    """The state of ``tokens``, mapped into memory; None where it is not there, damaged or of other tokens."""
    described = _described(tokens)
    start = len(MAGIC) + CHECKSUM
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            path.touch()
        except (OSError, ValueError):  # ValueError: an empty file
            yield None
            return
        whole = stack.enter_context(memoryview(content))
        rest = stack.enter_context(whole[start:])
        state = stack.enter_context(rest[len(described) :])
        is_sound = (
            content[: len(MAGIC)] == MAGIC
            and hashlib.sha256(rest).digest() == content[len(MAGIC) : start]
            and rest[: len(described)] == described
        )
        yield state if is_sound else None


def write(path: Path, tokens: Sequence[int], state: bytes | memoryview) -> None:
    """Keep ``state``; a disk that does not take it is no error, since it can be computed again."""
    described = _described(tokens)
    checksum = hashlib.sha256(described)
    checksum.update(state)
    with suppress(OSError, EdgeError):
        with exclusive(path.parent), building(path.parent) as temporary:
            built = temporary / path.name
            with built.open("wb") as file:
                file.write(MAGIC + checksum.digest() + described)
                file.write(state)
            publish(built, path)
        kept = sorted(path.parent.glob("*.kv"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)


def _described(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<I{len(tokens)}I", len(tokens), *tokens)
