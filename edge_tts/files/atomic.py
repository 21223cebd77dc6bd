"""Write files and folders all or nothing: one process at a time, a temporary folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_tts.errors import EdgeError, InputError, ResourceError

Progress = Callable[[float, str], None]
"""Called with the fraction done, in [0, 1], and a few words on the current work."""

_TEMPORARY = ".building-"
_SPARE_BYTES = 16 * 2**20


def silent(fraction: float, label: str) -> None:
    """A Progress that shows nothing."""


@contextlib.contextmanager
def exclusive(folder: Path, progress: Progress = silent) -> Iterator[None]:
    """Let one process at a time build in ``folder``; others wait. Creates the folder.

    Temporary folders that a killed process left are removed first. Raises InputError where the folder
    cannot be written, ResourceError where the disk is full.
    """
    from filelock import FileLock, Timeout

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(0.0, "waiting for another process that is preparing the same files")
            lock.acquire()
    try:
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, always deleted at the end; for use inside ``exclusive``."""
    with disk_errors(folder):
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def publish(built: Path, target: Path) -> None:
    """Replace ``target`` by the file or folder ``built``, durably; both must be on one filesystem."""
    for path in [built, *built.rglob("*")]:
        _sync(path)
    if target.is_dir():
        # A folder cannot be replaced in one step, so the old one is moved aside first.
        aside = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
        target.rename(aside / target.name)
        built.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        built.replace(target)
    _sync(target.parent)


def require_space(folder: Path, needed: int) -> None:
    """Raise ResourceError unless the disk of ``folder`` has ``needed`` bytes free, plus 16 MiB."""
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + _SPARE_BYTES:
        wanted = (needed + _SPARE_BYTES) / 2**20
        raise ResourceError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB free, but {wanted:.0f} MiB are needed; "
            "free some space, or set EDGE_REASON_HOME to a folder on another disk"
        )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError raised while writing in ``folder`` into ResourceError (disk full) or InputError."""
    try:
        yield
    except EdgeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"the disk of {folder} is full; free some space, or set EDGE_REASON_HOME to a folder on another disk"
            ) from error
        raise InputError(
            f"the folder {folder} cannot be written ({error.strerror or error}); "
            "change its permissions, or set EDGE_REASON_HOME to a folder you own"
        ) from error


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
