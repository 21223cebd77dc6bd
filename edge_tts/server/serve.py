"""From a host and a port to a server that ends well."""

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
from edge_tts.server.admission import Admission
from edge_tts.server.app import create_app
from edge_tts.server.protocol import BoundedProtocol
from edge_tts.solver import Solver

GRACE_SECONDS = 5.0
"""What running requests get when the server is told to stop; then they end with the best they have."""
LAST_SECONDS = 3
"""What clients get afterwards to read it."""
BACKLOG = 1024


_M_ARENA_MAX = -8
"""glibc's number of the setting, from malloc.h."""
_ARENAS = 2


def keep_memory_together() -> None:
    """Have threads share what they free: here, and in processes that are started later.

    Every search has a thread of its own, and glibc would keep up to eight arenas for each core, with what was freed
    in one of no use to the others: 80 MB after five minutes of load. Does nothing where there is another libc.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", str(_ARENAS))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def listen(host: str, port: int, token: str | None) -> tuple[socket.socket, bool]:
    """A socket that listens at ``host``, and whether only this machine can reach it.

    Port 0 is any free one. Raises InputError where the address cannot be had, or is open to others without ``token``.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(str(address[0])).is_loopback
        if not loopback and not token:
            raise InputError(
                f"--host {host} can be reached by others, so a token is needed; set EDGE_REASON_TOKEN, or use 127.0.0.1"
            )
        # asyncio sends small answers at once only where the protocol is named; create_server() does not.
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
        raise InputError(f"cannot listen at {host}, port {port}: {why}; choose another --host or --port") from error


def make_server(
    solver: Solver, admission: Admission, token: str | None = None, loopback: bool = True
) -> uvicorn.Server:
    """A server for ``solver`` that is not running yet; see :class:`~edge_tts.server.guard.Guard` for the rest."""
    config = uvicorn.Config(
        create_app(solver, admission, token, loopback),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # the guard reports what fails; clients that misbehave are no news
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(GRACE_SECONDS) + LAST_SECONDS,
    )
    return _Server(config, solver, admission)


def serve(server: uvicorn.Server, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM comes, then let what runs end."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that leaves in the middle
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them once more when it has stopped
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, solver: Solver, admission: Admission) -> None:
        super().__init__(config)
        self._solver, self._admission = solver, admission

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._admission.close()
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._solver.cancel)
        await super().shutdown(sockets)
