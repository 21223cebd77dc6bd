"""Telling work, from any thread, that it is not wanted any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Asked for once and for good; work looks at ``requested``, or is told at once while it waits for something."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        self._listeners: dict[object, Callable[[], None]] = {}

    def request(self) -> None:
        """Tell everyone who listens, from this thread; idempotent."""
        with self._lock:
            self.requested = True
            listeners, self._listeners = self._listeners, {}
        for tell in listeners.values():
            tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have ``tell`` called, at most once, if the request comes before the end of the block or has come already.

        It runs in the thread that asks and may still do so a moment after the block, so it must not wait or fail.
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
