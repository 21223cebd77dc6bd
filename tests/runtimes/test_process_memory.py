"""Resident memory of mapped files."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import psutil
import pytest

from edge_tts.runtimes.process_memory import MIB, release_mapped_files

SIZE = 64 * MIB


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["plain", "two words", "line\u2028end", "caf\udce9"])
def test_pages_of_mapped_files_are_given_back_and_come_again(tmp_path: Path, name: str) -> None:
    tmp_path /= name
    tmp_path.mkdir()
    path = tmp_path / "a model.gguf"
    path.write_bytes(b"word" * (SIZE // 4))
    other = bytearray(b"kept" * 1000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[::4096].count(b"w") == SIZE // 4096
        before = resident()
        release_mapped_files(tmp_path, ".bin")
        assert resident() > before - SIZE / 2
        release_mapped_files(tmp_path, ".gguf", 0.5)
        assert before - 0.75 * SIZE < resident() < before - 0.25 * SIZE
        release_mapped_files(tmp_path, ".gguf")
        assert resident() < before - 0.75 * SIZE
        assert mapped[::4096].count(b"w") == SIZE // 4096
    assert other == b"kept" * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_process_changed_in_a_mapped_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(MIB))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"mine"
        release_mapped_files(tmp_path, ".gguf")
        assert mapped[:4] == b"mine"
