"""What the process of a download runs. Does not use Qt."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from edge_tts.errors import EdgeError
from edge_tts.packs.bare_model import find_model
from edge_tts.packs.pack import Pack, prepare_pack

_GRACE_SECONDS = 2.0
"""How long an interrupted download may take to close its files."""


def fetch(pipe: Connection[Any, Any], wanted: Pack | str) -> None:
    """Fetch ``wanted``, a pack or what ``--model`` takes, and say through ``pipe`` how it goes.

    Anything that comes from ``pipe`` ends the work.
    Sends pairs of the share done in [0, 1] and what is being done, and at last a text: what went wrong, or "".
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock, suppress(OSError):  # the app has ended; then the work ends too
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
    """Interrupt the work when the app says so, or has ended."""
    with suppress(EOFError, OSError):
        pipe.recv()
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # also while the main thread waits for the network
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
