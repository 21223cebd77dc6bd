"""A download in a child process: the libraries that fetch cannot be stopped in the middle, a process can.

A cancelled download leaves what it has on the disk, and the next one goes on from there.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from edge_tts.errors import BackendError, EdgeError
from edge_tts.files.atomic import Progress
from edge_tts.packs.bare_model import find_model
from edge_tts.packs.pack import Pack, prepare_pack

_GRACE_SECONDS = 2.0
"""How long an interrupted download may take to close its files."""
_END_SECONDS = 3.0
"""How long its process may take to end before it is killed."""


class Fetching:
    """A download under way."""

    def __init__(self, wanted: Pack | str) -> None:
        """Begin to have all files of ``wanted`` here: of a pack, or of a model named as ``--model`` takes it."""
        spawn = get_context("spawn")
        self.cancelled = False
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_fetch, args=(theirs, wanted), name="edge-download", daemon=True)
        self._process.start()
        theirs.close()

    def follow(self, progress: Progress) -> None:
        """Wait until it has ended; returns where it is complete or ``cancelled``. Call it once.

        Raises BackendError that says what went wrong.
        """
        outcome: str | None = None
        with suppress(EOFError, OSError):
            while outcome is None:
                message = self._pipe.recv()
                if isinstance(message, str):
                    outcome = message
                elif not self.cancelled:
                    progress(*message)
        self._end()
        self._pipe.close()
        if outcome is None:
            code = self._process.exitcode
            outcome = f"the download ended unexpectedly (exit code {code}); try again"
        if outcome and not self.cancelled:
            raise BackendError(outcome)

    def cancel(self) -> None:
        """End it, to be resumed later; returns at once, from any thread."""
        self.cancelled = True
        with suppress(OSError):  # it has ended
            self._pipe.send(None)

    def close(self) -> None:
        """End it and wait for its process."""
        self.cancel()
        self._end()

    def _end(self) -> None:
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _fetch(pipe: Connection[Any, Any], wanted: Pack | str) -> None:
    """Fetch ``wanted`` and say through ``pipe`` how it goes; anything that comes from there ends the work.

    Sends pairs of the share done in [0, 1] and what is being done, and at last a text: what went wrong, or "".
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock, suppress(OSError):  # the host has ended; then the work ends too
            pipe.send(message)

    def progress(fraction: float, what: str) -> None:
        send((fraction, what))

    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()
    try:
        prepare_pack(wanted if isinstance(wanted, Pack) else find_model(wanted, progress), progress)
        send("")
    except KeyboardInterrupt:
        pass
    except EdgeError as error:
        send(str(error))
    except Exception as error:
        send(f"the download failed: {error!r}; try again")


def _watch(pipe: Connection[Any, Any]) -> None:
    """Interrupt the work when the host says so, or has ended."""
    with suppress(EOFError, OSError):
        pipe.recv()
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # also while the main thread waits for the network
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
