"""uvicorn's HTTP protocol with limits on connections, on slow headers and on slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_tts.server.api_error import ApiError

MAX_CONNECTIONS = 256
HEADER_SECONDS = 10.0
"""Longest time from connecting, or from the first byte of a request, to its complete header."""
SEND_SECONDS = 10.0
"""Longest time that a response may wait for its client to read."""


class _Timer:
    """Calls ``act`` after ``seconds``, unless stopped before. A second ``start`` while it runs changes nothing."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._seconds, self._act = seconds, act
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self._seconds, self._act)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class BoundedProtocol(H11Protocol):
    """One connection. Unlike uvicorn's ``limit_concurrency``, this closes connections beyond the limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header = _Timer(HEADER_SECONDS, self._header_is_late)
        self._sending = _Timer(SEND_SECONDS, transport.abort)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                ApiError(
                    503,
                    f"{MAX_CONNECTIONS} connections are open; close one first",
                    code="connections_full",
                )
            )
        else:
            self._header.start()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering:
            self._header.stop()
        elif not self.transport.is_closing():  # an incomplete header, or the body of a request that was refused
            self._header.start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header.stop()
        self._sending.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sending.stop()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():  # closing would wait until the client has read it
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, f"this is not an HTTP request: {msg}"))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _header_is_late(self) -> None:
        if not self._answering:
            self.transport.abort()

    def _refuse(self, refusal: ApiError) -> None:
        body = bytes(refusal.response.body)
        self.transport.write(
            f"HTTP/1.1 {refusal.status} Refused\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()
