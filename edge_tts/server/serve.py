"""Listening, serving, and stopping without losing running requests."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

import uvicorn

from edge_tts.errors import InputError
from edge_tts.server.app import create_app
from edge_tts.server.protocol import BoundedProtocol
from edge_tts.server.served import ServedModel

GRACE_SECONDS = 5.0
"""Time that running requests get after a stop signal; then they return the best answer so far."""
LAST_SECONDS = 3
"""Time that clients get after that to read it."""
BACKLOG = 1024

_M_ARENA_MAX = -8
"""The setting's number in glibc's malloc.h."""
_ARENAS = 2


def limit_arenas() -> None:
    """Limit malloc to two arenas in this process and in those it starts; does nothing without glibc.

    Every search runs in its own thread. By default glibc creates up to eight arenas for each core, and memory freed in
    one is not available to the others: that cost 80 MB after five minutes of load.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", str(_ARENAS))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def listen(host: str, port: int, token: str | None) -> tuple[socket.socket, bool]:
    """A socket that listens on ``host``, and whether ``host`` is a loopback address.

    Port 0 picks a free port. Raises InputError if the address is not available, or if other machines can reach it and
    there is no ``token``.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(str(address[0])).is_loopback
        if not loopback and not token:
            raise InputError(
                f"other machines can reach --host {host}, so a token is needed; set EDGE_REASON_TOKEN or use 127.0.0.1"
            )
        # asyncio sets TCP_NODELAY only on sockets that name their protocol, which socket.create_server() does not.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening, loopback
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}, port {port}: {why}; choose another --host or --port") from error


def make_server(served: ServedModel, token: str | None = None, loopback: bool = True) -> uvicorn.Server:
    """A server for ``served``, not started yet. ``Guard`` describes ``token`` and ``loopback``."""
    config = uvicorn.Config(
        create_app(served, token, loopback),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # failures are logged by the guard; misbehaving clients are not worth a line
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(GRACE_SECONDS) + LAST_SECONDS,
    )
    return _Server(config, served)


def serve(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests finish."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns about every client that disconnects
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn sends itself the signal again when it has stopped
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, served: ServedModel) -> None:
        super().__init__(config)
        self._served = served

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._served.admission.close()
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._served.cancel)
        await super().shutdown(sockets)
