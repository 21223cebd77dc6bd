"""Resident memory of this process: how much there is at most, and how to give some back."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

MIB = 2**20
MAPPED = sys.platform == "linux"
"""Whether weights of a policy are mapped: they are ready sooner, and what is never used takes no memory."""


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return _peak_elsewhere()


def _peak_elsewhere() -> float:
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / MIB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def release_mapped_files(folder: Path, suffix: str, share: float = 1.0) -> None:
    """Take pages of files mapped from ``folder`` out of this process's resident memory (only where ``MAPPED``).

    Of each file that ends in ``suffix``, the first ``share`` of the mapping is released. Nothing is lost: pages that
    are used again come from the page cache, or from the disk where memory was short.
    """
    if not MAPPED:
        return
    libc = ctypes.CDLL(None)
    start = str(folder.resolve())
    # As paths are read, and split at the ends of lines only: names may have other characters that splitlines() knows.
    for line in os.fsdecode(Path("/proc/self/maps").read_bytes()).strip("\n").split("\n"):
        span, rights, *_, name = line.split(maxsplit=5)
        # Only what cannot be written to is the same as the file.
        if name.startswith(start) and name.endswith(suffix) and rights.startswith("r--"):
            low, high = (int(end, 16) for end in span.split("-"))
            length = int((high - low) * share) // mmap.PAGESIZE * mmap.PAGESIZE
            libc.madvise(ctypes.c_void_p(low), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
