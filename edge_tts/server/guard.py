"""Checks of every request before the application sees it: host, origin, token, size and duration of the body."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_tts.server import page
from edge_tts.server.api_error import ApiError
from edge_tts.server.metrics import Metrics

MAX_BODY = 2**20
"""Largest body in bytes."""
BODY_SECONDS = 10.0
"""Longest time that a body may take to arrive."""
OPEN_PATHS = (*page.PATHS, "/health")
"""Paths that need no token: the page, which asks for it, and the health check."""
CLIENT_LEFT = 499
"""Status in the metrics when a client disconnects before its answer; never sent."""

_log = logging.getLogger(__name__)


class Guard:
    """An ASGI application that wraps another one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None, loopback: bool) -> None:
        """``token`` is what every client must send; None lets any client in. ``loopback`` refuses requests for host
        names other than this machine's: a web page whose domain resolves to 127.0.0.1 (DNS rebinding) would otherwise
        count as the same origin.
        """
        self._app, self._metrics, self._loopback = app, metrics, loopback
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._metrics.requests.labels(message["status"]).inc()
            await send(message)

        try:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            self._check(scope["path"], headers)
            body = await _read(receive, headers)
            await self._app(scope, _replay(body, receive), counted)
        except ApiError as refusal:
            await refusal.response(scope, receive, counted)
        except Exception as error:
            if os.environ.get("EDGE_REASON_DEBUG"):
                _log.exception("internal error")
            else:
                _log.error(
                    "internal error: %s: %s (EDGE_REASON_DEBUG=1 shows the traceback)", type(error).__name__, error
                )
            if not started:
                await ApiError.internal().response(scope, receive, counted)

    def _check(self, path: str, headers: dict[bytes, str]) -> None:
        """Raises ApiError for a wrong host, origin or token."""
        host = headers.get(b"host", "")
        if self._loopback and not is_loopback(_hostname(host)):
            raise ApiError(403, f"this server does not answer for the host {host!r}; use 127.0.0.1", code="wrong_host")
        if self._token is None:
            origin = headers.get(b"origin")
            if origin is not None and origin.partition("://")[2] != host:
                raise ApiError(403, f"web pages from {origin!r} may not use this server", code="wrong_origin")
        elif path not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                raise ApiError(
                    401,
                    "this server needs its token; send the header Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is "localhost" or a loopback address."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    """The name in a Host header without port and brackets; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _read(receive: Receive, headers: dict[bytes, str]) -> bytes:
    """The whole body. Raises ApiError if it is too long, too slow, or the client disconnects."""
    too_long = ApiError(413, f"the body is larger than {MAX_BODY} bytes; shorten the messages", code="body_too_long")
    declared = headers.get(b"content-length", "0")
    if len(declared) > 18 or int(declared) > MAX_BODY:  # h11 has checked that it is only digits
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(CLIENT_LEFT, "the client disconnected")
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise too_long
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise ApiError(408, f"the body took longer than {BODY_SECONDS:g} s to arrive", code="body_too_slow") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that first gives ``body`` and then passes on the messages of the original."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
