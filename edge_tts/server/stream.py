"""The answer as a stream of server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edge_tts.server.answering import Answering
from edge_tts.server.api_error import ApiError
from edge_tts.server.reply import Reply

KEEP_ALIVE_SECONDS = 5.0
"""After this long without data a stream sends a comment, so that no proxy or client gives up."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The second header keeps nginx from buffering events."""


class EventStream(StreamingResponse):
    """Streams ``answering`` and always closes it, even if the client disconnects or never reads."""

    media_type = "text/event-stream"

    def __init__(self, answering: Answering, reply: Reply, choices: int) -> None:
        self._answering, self._reply = answering, reply
        super().__init__(self._lines(choices), headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answering.close()

    async def _lines(self, choices: int) -> AsyncIterator[str]:
        for chunk in self._reply.opening(choices):
            yield _data(chunk)
        async for line in self._progress():
            yield line
        try:
            for chunk in self._reply.answer(await self._answering.results):
                yield _data(chunk)
        except ApiError as refusal:  # too late for an HTTP status
            yield _data(self._reply.failure(refusal))
        if self._reply.ending:
            yield self._reply.ending

    async def _progress(self) -> AsyncIterator[str]:
        """The events of the searches until all have ended, and comments while there are none."""
        while True:
            try:
                found = await self._answering.next_event(KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield _ALIVE
                continue
            if found is None:
                return
            for chunk in self._reply.progress(*found):
                yield _data(chunk)


_ALIVE = ": still working\n\n"
"""A comment, which clients ignore."""


def _data(value: dict[str, Any]) -> str:
    # The Responses API names its events twice; chunks of completions have no type.
    name = f"event: {value['type']}\n" if "type" in value else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
