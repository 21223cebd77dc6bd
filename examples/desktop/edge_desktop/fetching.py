"""A download as the window follows it."""

from __future__ import annotations

import threading
from contextlib import suppress

from PySide6.QtCore import QObject, Signal

from edge_tts import EdgeError
from edge_tts.packs.fetching import Fetching
from edge_tts.packs.pack import Pack


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
        self._fetching: Fetching | None = None

    @property
    def is_running(self) -> bool:
        return self._fetching is not None

    def start(self, wanted: Pack | str) -> None:
        """Have all files of ``wanted`` on this machine; see :class:`Fetching`."""
        if self._fetching is None:
            self._fetching = Fetching(wanted)
            threading.Thread(target=self._follow, args=(self._fetching,), daemon=True).start()

    def cancel(self) -> None:
        """End the download, to be resumed later."""
        if fetching := self._fetching:
            fetching.cancel()

    def close(self) -> None:
        """End the download and wait for its process."""
        if fetching := self._fetching:
            fetching.close()

    def _follow(self, fetching: Fetching) -> None:
        problem = ""
        try:
            fetching.follow(self.progressed.emit)
        except EdgeError as error:
            problem = str(error)
        except RuntimeError:  # the window was closed meanwhile
            return
        self._fetching = None
        with suppress(RuntimeError):
            self.ended.emit(problem)
