"""Cancel running work from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """A request to stop that cannot be taken back. Work polls ``requested``, or registers a callback while it waits."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        self._listeners: dict[object, Callable[[], None]] = {}

    def request(self) -> None:
        """Ask the work to stop; calls every registered callback in this thread. Idempotent."""
        with self._lock:
            self.requested = True
            listeners, self._listeners = self._listeners, {}
        for tell in listeners.values():
            tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call ``tell``, at most once, if cancellation was requested before the block or is requested during it.

        The call happens in the requesting thread and may come just after the block has ended, so ``tell`` must
        neither block nor raise.
        """
        key = object()
        with self._lock:
            late = self.requested
            if not late:
                self._listeners[key] = tell
        if late:
            tell()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.pop(key, None)
