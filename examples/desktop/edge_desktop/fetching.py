"""Downloads in a child process: the libraries that fetch cannot be stopped in the middle, a process can.

A cancelled download leaves what it has on the disk, and the next one goes on from there.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from PySide6.QtCore import QObject, Signal

from edge_desktop.fetch_child import fetch
from edge_tts.packs.pack import Pack

_END_SECONDS = 3.0
"""How long a cancelled download may take to close its files before its process is killed."""


class Fetcher(QObject):
    """Has one download at a time under way. Every method but ``close`` returns at once.

    Each ``start`` emits exactly one ``ended``.
    """

    progressed = Signal(float, str)
    """The share done in [0, 1], and what is being done."""
    ended = Signal(str)
    """What went wrong, for the user; empty for a download that is complete or was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._pipe: Connection[Any, Any] | None = None
        self._process: BaseProcess | None = None
        self._cancelled = False

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, wanted: Pack | str) -> None:
        """Have all files of ``wanted`` on this machine: of a pack, or of a model named as ``--model`` takes it."""
        if self.is_running:
            return
        spawn = get_context("spawn")
        self._cancelled = False
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=fetch, args=(theirs, wanted), name="edge-download", daemon=True)
        self._process.start()
        theirs.close()
        threading.Thread(target=self._hear, args=(self._pipe, self._process), daemon=True).start()

    def cancel(self) -> None:
        """End the download, to be resumed later."""
        self._cancelled = True
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.send(None)

    def close(self) -> None:
        """End the download and wait for its process."""
        process = self._process
        self.cancel()
        if process is not None:
            _end(process)

    def _hear(self, pipe: Connection[Any, Any], process: BaseProcess) -> None:
        outcome: str | None = None
        with suppress(EOFError, OSError):
            while outcome is None:
                message = pipe.recv()
                if isinstance(message, str):
                    outcome = message
                elif not self._cancelled:
                    self.progressed.emit(*message)
        _end(process)
        pipe.close()
        self._pipe = self._process = None
        lost = f"the download ended unexpectedly (exit code {process.exitcode}); try again"
        with suppress(RuntimeError):  # the window was closed meanwhile
            self.ended.emit("" if self._cancelled else lost if outcome is None else outcome)


def _end(process: BaseProcess) -> None:
    process.join(_END_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
