"""A disk that fills: a small tmpfs whose free pages, or free names, are counted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

SIZE = 8 * 2**20
MOST_NAMES = 10_000


class SmallDisk:
    """Mounted at ``folder``; what is tested has all of it but the file ``filler``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def leave(self, pages: int) -> None:
        """Leave so many free pages, all of the names."""
        self.free()
        stat = os.statvfs(self.folder)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (stat.f_bavail - pages) * stat.f_bsize)

    def leave_names(self, names: int) -> None:
        """Leave so many names for new files, all of the space."""
        self.free()
        stat = os.statvfs(self.folder)
        self._remount(stat.f_files - stat.f_ffree + names)

    def free(self) -> None:
        """Leave all that is there."""
        self._filler.write_bytes(b"")
        self._remount(MOST_NAMES)

    def _remount(self, names: int) -> None:
        subprocess.run(["mount", "-o", f"remount,nr_inodes={names}", self.folder], timeout=60, check=True)

    def fill(self, attempt: Callable[[], bool], step: int = 1) -> int:
        """Call ``attempt`` with more and more pages free until it says that its work is done; gives the calls."""
        for calls in count(1):
            self.leave(step * (calls - 1))
            if attempt():
                return calls
        raise AssertionError

    def fill_names(self, attempt: Callable[[], bool]) -> int:
        """The same with more and more names free."""
        for calls in count(1):
            self.leave_names(calls - 1)
            if attempt():
                return calls
        raise AssertionError


@contextmanager
def mounted(folder: Path) -> Iterator[SmallDisk]:
    """Skips the test where nothing can be mounted."""
    if shutil.which("mount") is None:
        pytest.skip("needs mount, to have a disk that is full")
    folder.mkdir()
    options = f"size={SIZE},nr_inodes={MOST_NAMES}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, timeout=60)
    if made.returncode:
        pytest.skip(f"needs the right to mount (root), to have a disk that is full: {made.stderr.decode().strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", folder], timeout=60, check=True)
