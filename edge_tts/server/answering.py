"""The searches of one request. They hold one slot and never wait for the client to read."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

from edge_tts.errors import EdgeError
from edge_tts.events import Done, Event, Result
from edge_tts.server.admission import Admission
from edge_tts.server.api_error import ApiError
from edge_tts.server.metrics import Metrics
from edge_tts.server.understanding import Asked
from edge_tts.solver import Solver

MAX_UNREAD = 2000
"""Events kept for a client that reads slowly. Further ones are dropped and counted, so that memory stays bounded."""


class Answering:
    """Starts the searches when it is made. The owner must call ``close``, which stops those still running."""

    def __init__(self, asked: Asked, solver: Solver, admission: Admission, metrics: Metrics) -> None:
        self._asked, self._solver, self._admission, self._metrics = asked, solver, admission, metrics
        self._began = time.monotonic()
        self._events: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue()
        self._lost = 0
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first event has arrived or all searches have ended."""
        self.results = asyncio.create_task(self._run())
        """The results, one for each choice. Raises ApiError."""
        self.results.add_done_callback(self._ended)

    async def next_event(self, seconds: float) -> tuple[int, Event] | None:
        """The next event, with the index of its choice; None when all searches have ended.

        Raises TimeoutError if none arrives within ``seconds``.
        """
        async with asyncio.timeout(seconds):
            return await self._events.get()

    async def close(self) -> None:
        """Stop running searches and free the slot."""
        self.results.cancel()
        await asyncio.wait({self.results})
        if not self.results.cancelled():
            self.results.exception()  # marks it as seen: asyncio warns of errors that nobody looked at

    async def _run(self) -> list[Result]:
        try:
            async with self._admission.slot(self._asked.seconds):
                left = max(0.001, self._began + self._asked.seconds - time.monotonic())
                async with asyncio.TaskGroup() as group:
                    searches = [group.create_task(self._search(i, left)) for i in range(len(self._asked.seeds))]
        except BaseExceptionGroup as group:
            error = group.exceptions[0]
            raise (ApiError.of(error, self._asked.source) if isinstance(error, EdgeError) else error) from None
        results = [search.result() for search in searches]
        self._metrics.answered(results, self._lost)
        self._metrics.seconds.observe(time.monotonic() - self._began)
        return results

    async def _search(self, index: int, seconds: float) -> Result:
        asked = self._asked
        budget = replace(asked.budget, seconds=seconds)
        found = self._solver.astream(asked.messages, asked.strategy, budget, asked.seeds[index], **asked.options)
        async with aclosing(found) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.result
                self._publish(index, event)
        raise AssertionError("a search ends with Done")

    def _publish(self, index: int, event: Event) -> None:
        if not self.begun.done():
            self._metrics.first_event.observe(time.monotonic() - self._began)
            self.begun.set_result(None)
        if not self._asked.stream:
            return
        if self._events.qsize() < MAX_UNREAD:
            self._events.put_nowait((index, event))
        else:
            self._lost += 1

    def _ended(self, _: object) -> None:
        self._events.put_nowait(None)
        if not self.begun.done():
            self.begun.set_result(None)
