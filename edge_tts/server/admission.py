"""Admission control: which requests run, which wait, and which are refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_tts.server.api_error import ApiError

NEW_SHARE = 0.2
"""Weight of the latest request in the moving average of a request's time."""
PAUSE_SECONDS = 5
"""When a client that comes during a pause is told to try again."""
LOOK_SECONDS = 0.05


class Admission:
    """``parallel`` requests run at the same time; up to ``queue`` more wait for a slot, first come, first served."""

    def __init__(self, parallel: int, queue: int) -> None:
        self.parallel, self.queue = parallel, queue
        self.running = 0
        self.waiting = 0
        self._slots = asyncio.Semaphore(parallel)
        self._seconds = 1.0
        """Moving average of the time that a request holds a slot."""
        self._closed = False
        self._paused = ""

    @asynccontextmanager
    async def slot(self, seconds: float) -> AsyncIterator[None]:
        """Hold a slot for the length of the block, after waiting at most ``seconds`` for it.

        Raises ApiError (503) if the queue is full or no slot becomes free in time, both with Retry-After, while
        paused, and after ``close``.
        """
        self.require_open()
        if self._slots.locked() and self.waiting >= self.queue:
            raise self._busy(f"{self.running} requests are running and {self.waiting} are waiting", "queue_full")
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise self._busy(f"no slot became free within the deadline of {seconds:g} s", "queue_timeout") from None
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

    def require_open(self) -> None:
        """Raises ApiError (503) while paused and after ``close``."""
        if self._closed:
            raise self._stopping()
        if self._paused:
            after = {"Retry-After": str(PAUSE_SECONDS)}
            raise ApiError(503, f"{self._paused}; try again in {PAUSE_SECONDS} s", code="paused", headers=after)

    def pause(self, why: str) -> None:
        """Refuse new requests because of ``why``; those that run or wait go on."""
        self._paused = why

    async def idle(self) -> None:
        """Wait until no request runs or waits."""
        while self.running or self.waiting:
            await asyncio.sleep(LOOK_SECONDS)

    def resume(self, parallel: int) -> None:
        """End a pause, with ``parallel`` slots from now on."""
        if not self.running:
            self.parallel, self._slots = parallel, asyncio.Semaphore(parallel)
        self._paused = ""

    def close(self) -> None:
        """Refuse new and waiting requests; running ones go on."""
        self._closed = True

    def _busy(self, why: str, code: str) -> ApiError:
        after = max(1, math.ceil(self._seconds * (self.waiting + 1) / self.parallel))
        return ApiError(
            503, f"the server is busy: {why}; try again in {after} s", code=code, headers={"Retry-After": str(after)}
        )

    def _stopping(self) -> ApiError:
        return ApiError(503, "the server is shutting down; try again when it is back", code="stopping")
