"""The history in a separate thread, so that a slow disk never blocks the event loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from edge_desktop.history import Answered, History, HistoryError

_Task = Callable[[History], object]


class Keeper(QObject):
    """A :class:`History` in its own thread. Every method but ``close`` returns at once.

    If the file cannot be opened, ``failed`` is emitted once and nothing is stored.
    """

    found = Signal(object)
    """The rows of :meth:`History.find`; emitted after every change, too."""
    got = Signal(object)
    """An :class:`Answered`."""
    failed = Signal(str)

    _wanted = Signal(object)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._text = ""
        self._thread = QThread()
        self._worker = _Worker(path, self)
        self._worker.moveToThread(self._thread)
        self._wanted.connect(self._worker.run)
        self._thread.start()

    def find(self, text: str) -> None:
        """Search for ``text``; emits ``found``."""
        self._text = text
        self._wanted.emit(lambda history: self.found.emit(history.find(text)))

    def get(self, entry: int) -> None:
        """Read one entry; emits ``got``."""
        self._wanted.emit(lambda history: self.got.emit(history.get(entry)))

    def add(self, answered: Answered) -> None:
        """Store ``answered``."""
        self._wanted.emit(lambda history: history.add(answered))
        self.find(self._text)

    def delete(self, entry: int) -> None:
        """Delete an entry."""
        self._wanted.emit(lambda history: history.delete(entry))
        self.find(self._text)

    def close(self) -> None:
        """Finish the pending work and close the file."""
        self._wanted.emit(None)
        self._thread.wait()


class _Worker(QObject):
    def __init__(self, path: Path, keeper: Keeper) -> None:
        super().__init__()
        self._path = path
        self._keeper = keeper
        self._history: History | None = None
        self._unusable = False

    def run(self, task: _Task | None) -> None:
        """Run ``task``; None ends the thread."""
        if task is None:
            if self._history is not None:
                self._history.close()
            QThread.currentThread().quit()
        elif not self._unusable:
            try:
                self._history = self._history or self._open()
                task(self._history)
            except HistoryError as error:
                self._keeper.failed.emit(str(error))

    def _open(self) -> History:
        self._unusable = True
        history = History(self._path)
        self._unusable = False
        return history
