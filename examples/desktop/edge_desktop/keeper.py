"""The history, away from the event loop: a disk may take its time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from edge_desktop.history import Answered, History, HistoryError

_Task = Callable[[History], object]


class Keeper(QObject):
    """A :class:`History` in a thread of its own; every method but ``close`` returns at once.

    Where the file cannot be opened, ``failed`` says so once and nothing is kept.
    """

    found = Signal(object)
    """What :meth:`History.find` gives; after every change, too."""
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
        """Look for ``text``; ``found`` follows."""
        self._text = text
        self._wanted.emit(lambda history: self.found.emit(history.find(text)))

    def get(self, entry: int) -> None:
        """Look an entry up; ``got`` follows."""
        self._wanted.emit(lambda history: self.got.emit(history.get(entry)))

    def add(self, answered: Answered) -> None:
        """Keep ``answered``."""
        self._wanted.emit(lambda history: history.add(answered))
        self.find(self._text)

    def delete(self, entry: int) -> None:
        """Forget an entry."""
        self._wanted.emit(lambda history: history.delete(entry))
        self.find(self._text)

    def close(self) -> None:
        """Finish what was asked for, and release the file."""
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
        """Do one thing; None ends the thread."""
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
