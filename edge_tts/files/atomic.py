"""Write files and folders all or nothing: one process at a time, a temporary folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_tts.errors import EdgeError, InputError, ResourceError
from edge_tts.files.folders import cache_folder, data_folder, profiles_folder

Progress = Callable[[float, str], None]
"""Called with the fraction done, in [0, 1], and a few words on the current work."""

_TEMPORARY = ".building-"
_REPLACED = ".replaced-"
"""Before the name of a folder that is moved aside for its successor."""
_LEFT_SECONDS = 3600
"""A temporary folder in which nothing has changed for so long was left by a killed process."""
_SPARE_BYTES = 16 * 2**20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError that says that the disk is full."""


def silent(fraction: float, label: str) -> None:
    """A Progress that shows nothing."""


@contextlib.contextmanager
def exclusive(folder: Path, progress: Progress = silent) -> Iterator[None]:
    """Let one process at a time build in ``folder``; others wait. Creates the folder.

    What a killed process left is tidied first: temporary folders are removed, and a folder that was moved aside and
    has no successor is put back. So all that write there must take turns. Errors as of :func:`disk_errors`.
    """
    with turn(folder, progress):
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextlib.contextmanager
def turn(folder: Path, progress: Progress = silent) -> Iterator[None]:
    """Let one process at a time replace folders inside ``folder``, where others may write files of their own.

    As :func:`exclusive`, but temporary folders stay.
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
        with disk_errors(folder):
            for aside in folder.glob(f"{_REPLACED}*"):
                _put_back(aside)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def only_process(path: Path, shown: Path) -> Iterator[None]:
    """Keep other processes from adding to the file or folder ``path``, which need not exist; ``shown`` names it.

    Raises InputError where another process adds to it now, OSError where nothing can be written beside it.
    """
    from filelock import FileLock, Timeout

    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is adding to {shown}; wait until it ends or choose another --out") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, always deleted at the end, and with it what killed processes left there.

    Errors as of :func:`disk_errors`.
    """
    with disk_errors(folder):
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            if _is_left(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
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
        # A folder cannot be replaced in one step; one that is killed between the two is undone by ``exclusive``.
        aside = target.with_name(f"{_REPLACED}{target.name}")
        if aside.exists():
            _discard(aside)
        try:
            target.rename(aside)
            built.rename(target)
        finally:
            if aside.exists():
                _put_back(aside)
    else:
        built.replace(target)
    sync_names(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to the file ``path`` in UTF-8, all or nothing; its folder is created.

    Half of a surrogate pair becomes a question mark. A link is followed, and what is there but no regular file, such
    as a pipe, is written to as it is. Errors as of :func:`disk_errors`.
    """
    content = text.encode("utf-8", errors="replace")
    with disk_errors(path.parent):
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with building(target.parent) as temporary:
            built = temporary / target.name
            built.write_bytes(content)
            if target.exists():
                shutil.copymode(target, built)
            publish(built, target)


def sync_names(folder: Path) -> None:
    """Have the names of the files in ``folder`` on the disk: a file that was synced may have none after a crash."""
    if os.name == "nt":
        return  # Windows cannot open a folder
    with contextlib.suppress(OSError):  # some network file systems cannot either
        _sync(folder)


def require_space(folder: Path, needed: int) -> None:
    """Raise ResourceError unless the disk of ``folder`` has ``needed`` bytes free, plus 16 MiB."""
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + _SPARE_BYTES:
        wanted = (needed + _SPARE_BYTES) / 2**20
        raise ResourceError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB free, but {wanted:.0f} MiB are needed; "
            f"free some space, or {_elsewhere(folder)} on another disk"
        )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError raised while writing in ``folder`` into ResourceError (disk full) or InputError."""
    try:
        yield
    except EdgeError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise ResourceError(
                f"the disk of {folder} is full; free some space, or {_elsewhere(folder)} on another disk"
            ) from error
        raise InputError(
            f"the folder {folder} cannot be written ({error.strerror or error}); "
            f"change its permissions, or {_elsewhere(folder)} that you own"
        ) from error


def _elsewhere(folder: Path) -> str:
    """What to do to have files of ``folder`` in another one."""
    own = (data_folder().parent, profiles_folder().parent, cache_folder().parent)
    is_own = any(folder.absolute().is_relative_to(parent) for parent in own)
    return "set EDGE_REASON_HOME to a folder" if is_own else "choose a folder"


def _is_left(temporary: Path) -> bool:
    """Whether nothing in a temporary folder has changed for a while."""
    changed = 0.0
    for path in [temporary, *temporary.rglob("*")]:
        with contextlib.suppress(OSError):
            changed = max(changed, path.lstat().st_mtime)
    return time.time() - changed > _LEFT_SECONDS


def _put_back(aside: Path) -> None:
    """Undo that a folder was moved aside, unless its successor is there."""
    target = aside.with_name(aside.name.removeprefix(_REPLACED))
    if target.exists():
        _discard(aside)
    else:
        aside.rename(target)


def _discard(aside: Path) -> None:
    """Delete a folder that was moved aside, under another name: half of it must never be put back."""
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=aside.parent))
    aside.rename(temporary / aside.name)
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
