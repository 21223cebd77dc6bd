"""Who may run, who waits, and who is sent away."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_tts.server.api_error import ApiError

NEW_SHARE = 0.2
"""How much the latest request counts in the mean time of one."""


class Admission:
    """Slots for ``parallel`` requests, in the order of arrival, and a queue of at most ``queue`` before them."""

    def __init__(self, parallel: int, queue: int) -> None:
        self.parallel, self.queue = parallel, queue
        self.running = 0
        self.waiting = 0
        self._slots = asyncio.Semaphore(parallel)
        self._seconds = 1.0
        """Mean time of a request in a slot, lately."""
        self._closed = False

    @asynccontextmanager
    async def slot(self, seconds: float) -> AsyncIterator[None]:
        """A slot for as long as the block lasts.

        Raises ApiError (503 with Retry-After) where the queue is full, where none falls free within ``seconds``, and
        once closed.
        """
        if self._closed:
            raise self._stopping()
        if self._slots.locked() and self.waiting >= self.queue:
            raise self._busy(f"{self.running} requests run and {self.waiting} wait", "queue_full")
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise self._busy(f"no slot fell free within the deadline of {seconds:g} s", "queue_timeout") from None
        finally:
            self.waiting -= 1
        began = time.monotonic()
        self.running += 1
        try:
            if self._closed:
                raise self._stopping()
            yield
        finally:
            self.running -= 1
            self._slots.release()
            self._seconds += NEW_SHARE * (time.monotonic() - began - self._seconds)

    def close(self) -> None:
        """Let nobody in any more; those who run may go on."""
        self._closed = True

    def _busy(self, why: str, code: str) -> ApiError:
        after = max(1, math.ceil(self._seconds * (self.waiting + 1) / self.parallel))
        return ApiError(
            503, f"the server is busy: {why}; try again in {after} s", code=code, headers={"Retry-After": str(after)}
        )

    def _stopping(self) -> ApiError:
        return ApiError(503, "the server is stopping; ask again once it is back", code="stopping")
