"""Load for a server: clients that wait, leave early, read slowly or send bad requests, and bursts of requests."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from edge_tts.bench.server_process import ServerProcess

CLIENTS = 4
"""Clients at a time; each sends a request when its last one is over."""
BURST = 40
"""Requests sent at once: more than the server runs and queues."""
BURST_EVERY_S = 60.0
SAMPLE_EVERY_S = 1.0
WARM_UP_SHARE = 0.2
"""Share of the time after which memory should no longer grow."""
WINDOW_SHARE = 0.1
"""Memory after the warm-up, and at the end, is the median over this share of the time."""
LEAST_DEADLINE_S, LARGEST_DEADLINE_S = 1.0, 45.0
"""Each request draws a deadline between them, or the server's own where that is shorter."""
LONGEST_S = 60.0
"""Timeout of a request."""
LATE_SHARE, LATE_S = 0.05, 0.05
"""How late an answer may be: a share of its deadline, and seconds."""
STRATEGIES = ("greedy", "majority:n=4", "adaptive:n=8", "auto", "revise:n=4")
VERIFIED = ("weighted:n=4", "beam:n=4")
"""Those that are asked for too where the model has a verifier."""
LEFT = "left"
"""Recorded in place of a status for a client that left before it had the whole answer."""
BAD_BODIES: tuple[dict[str, Any] | bytes, ...] = (
    b"{",
    b"[" * 100_000,
    b'{"model": "\xff"}',
    {"messages": []},
    {"temperature": -1},
    {"n": 1000},
    {"model": "another"},
    {"colour": "blue"},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    {"messages": [{"role": "user", "content": "word " * 3000}]},
    {"edge": {"strategy": "guess"}},
)
"""Bad requests: bytes are a whole body, fields are added to a good one."""

Client = Callable[["Asker", str], Awaitable[str]]


@dataclass
class Asker:
    """Sends requests to one server."""

    server: ServerProcess
    model: str
    strategies: Sequence[str]
    http: httpx.AsyncClient
    draw: random.Random
    longest_s: float
    """Largest deadline of a request."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Seconds that each request took that was read to its end, and its deadline."""

    def body(self, question: str, **fields: Any) -> dict[str, Any]:
        """A good request, with a strategy drawn at random."""
        messages = [{"role": "user", "content": question}]
        edge = {
            "strategy": self.draw.choice(self.strategies),
            "generations": 8,
            "deadline_s": round(self.draw.uniform(LEAST_DEADLINE_S, self.longest_s), 1),
            **fields.pop("edge", {}),
        }
        return {"model": self.model, "messages": messages, "seed": self.draw.randrange(2**31), "edge": edge} | fields

    async def post(self, body: dict[str, Any] | bytes) -> httpx.Response:
        content: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.http.post("/v1/chat/completions", headers={"Content-Type": "application/json"}, **content)

    @contextmanager
    def timed(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Records how long the request with ``body`` takes, which is read to its end in the block."""
        began = time.monotonic()
        yield body
        self.waits.append((time.monotonic() - began, body["edge"]["deadline_s"]))


async def whole(ask: Asker, question: str) -> str:
    with ask.timed(ask.body(question)) as body:
        return str((await ask.post(body)).status_code)


async def choices(ask: Asker, question: str) -> str:
    with ask.timed(ask.body(question, n=3)) as body:
        return str((await ask.post(body)).status_code)


async def stream(ask: Asker, question: str) -> str:
    with ask.timed(ask.body(question, stream=True, edge={"events": ask.draw.random() < 0.5})) as body:
        async with ask.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line async for line in response.aiter_lines() if line]
    return str(response.status_code) if response.is_error or lines[-1] == "data: [DONE]" else "cut off"


async def leave(ask: Asker, question: str) -> str:
    """Leave before the answer is there."""
    try:
        async with asyncio.timeout(ask.draw.uniform(0.01, 0.5)):
            return str((await ask.post(ask.body(question, edge={"strategy": "majority:n=16"}))).status_code)
    except TimeoutError:
        return LEFT


async def leave_stream(ask: Asker, question: str) -> str:
    """Leave after a few events."""
    body = ask.body(question, stream=True, edge={"strategy": "majority:n=16", "events": True})
    async with ask.http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            return str(response.status_code)
        wanted = ask.draw.randrange(1, 20)
        async for _ in response.aiter_lines():
            wanted -= 1
            if not wanted:
                return LEFT
    return str(response.status_code)


async def slow(ask: Asker, question: str) -> str:
    """Read 64 bytes five times a second, then leave."""
    address = urlsplit(ask.server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=256)
    try:
        request = ask.http.build_request(
            "POST", "/v1/chat/completions", json=ask.body(question, stream=True, edge={"events": True})
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        status = (await reader.readline()).split()[1].decode()
        for _ in range(ask.draw.randrange(5, 25)):
            await asyncio.sleep(0.2)
            if not await reader.read(64):
                break
        return status
    finally:
        writer.close()


async def wrong(ask: Asker, question: str) -> str:
    bad = ask.draw.choice(BAD_BODIES)
    response = await ask.post(bad if isinstance(bad, bytes) else ask.body(question) | bad)
    shaped = set(response.json()["error"]) == {"message", "type", "param", "code"}
    return str(response.status_code) if shaped else "another shape"


MIX: dict[str, tuple[Client, int, frozenset[str]]] = {
    "whole": (whole, 6, frozenset({"200", "503"})),
    "stream": (stream, 6, frozenset({"200", "503"})),
    "choices": (choices, 2, frozenset({"200", "503"})),
    "leave": (leave, 3, frozenset({"200", "503", LEFT})),
    "leave_stream": (leave_stream, 3, frozenset({"200", "503", LEFT})),
    "slow": (slow, 2, frozenset({"200", "503"})),
    "wrong": (wrong, 4, frozenset({"400", "404", "503"})),
}
"""Kinds of clients: what one does, its weight when a kind is drawn, and what may be recorded for it."""


@dataclass
class Tally:
    """What happened to all clients, and the server's memory meanwhile."""

    statuses: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    """Pairs of seconds since the start and resident memory in MiB."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """As in :class:`Asker`."""

    async def run(self, kind: str, ask: Asker, question: str) -> None:
        """Run one client of ``kind`` and record its status; its seconds too where that is 200."""
        began = time.monotonic()
        try:
            status = await MIX[kind][0](ask, question)
        except httpx.HTTPError as error:
            status = type(error).__name__
        self.statuses[kind][status] += 1
        if status == "200":
            self.seconds[kind].append(time.monotonic() - began)

    def summary(self) -> dict[str, Any]:
        """Counts by kind and status, percentiles of seconds, statuses that a kind must not have, and memory."""
        return {
            "requests": sum(sum(counts.values()) for counts in self.statuses.values()),
            "statuses": {kind: dict(counts) for kind, counts in self.statuses.items()},
            "seconds": {kind: percentiles(values) for kind, values in self.seconds.items() if values},
            "unexpected": [
                {"kind": kind, "status": status, "count": count}
                for kind, counts in self.statuses.items()
                for status, count in counts.items()
                if status not in MIX[kind][2]
            ],
            "deadlines": lateness(self.waits),
            "memory": growth(self.memory_mb),
        }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and maximum of ``values``, rounded to thousandths; nothing for none."""
    if not values:
        return {}
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = np.quantile(values, list(shares.values()), method="higher")
    return {name: round(float(value), 3) for name, value in zip(shares, found, strict=True)}


def allowed_s(deadline_s: float) -> float:
    """How late an answer with this deadline may be, in seconds."""
    return LATE_SHARE * deadline_s + LATE_S


def lateness(waits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How much later than their deadlines requests were over: in seconds, and in parts of what is allowed."""
    late = [took - deadline for took, deadline in waits]
    allowed = [allowed_s(deadline) for _, deadline in waits]
    return {
        "requests": len(waits),
        "late_seconds": percentiles(late),
        "of_what_is_allowed": percentiles([a / b for a, b in zip(late, allowed, strict=True)]),
    }


def growth(samples: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Memory after the warm-up, at the end and at most, and the share by which it grew after the warm-up."""
    total = samples[-1][0]

    def around(start: float) -> float:
        window = [mb for at, mb in samples if start * total <= at <= (start + WINDOW_SHARE) * total]
        return statistics.median(window)

    warm, end = around(WARM_UP_SHARE), around(1 - WINDOW_SHARE)
    return {
        "after_warm_up_mb": round(warm, 1),
        "end_mb": round(end, 1),
        "peak_mb": round(max(mb for _, mb in samples), 1),
        "growth": round(end / warm - 1, 4),
    }


async def mixed_load(
    server: ServerProcess,
    model: str,
    strategies: Sequence[str],
    questions: Sequence[str],
    longest_s: float,
    seconds: float,
    seed: int,
) -> Tally:
    """Load ``server`` for ``seconds``: ``CLIENTS`` clients of kinds drawn by weight, and a burst every minute.

    ``longest_s`` is the server's deadline, in seconds.
    """
    tally, ends, began = Tally(), time.monotonic() + seconds, time.monotonic()
    draw = random.Random(seed)
    kinds, weights = list(MIX), [weight for _, weight, _ in MIX.values()]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=LONGEST_S, limits=limits) as http:
        ask = Asker(server, model, strategies, http, draw, min(LARGEST_DEADLINE_S, longest_s), tally.waits)

        async def client() -> None:
            while time.monotonic() < ends:
                await tally.run(draw.choices(kinds, weights)[0], ask, draw.choice(questions))

        async def bursts() -> None:
            pause = min(BURST_EVERY_S, seconds / 4)
            while time.monotonic() + pause < ends:
                await asyncio.sleep(pause)
                await asyncio.gather(*(tally.run("whole", ask, draw.choice(questions)) for _ in range(BURST)))

        async def samples() -> None:
            while time.monotonic() < ends:
                memory = await asyncio.to_thread(server.memory_mb)
                tally.memory_mb.append((time.monotonic() - began, memory))
                await asyncio.sleep(SAMPLE_EVERY_S)

        await asyncio.gather(samples(), bursts(), *(client() for _ in range(CLIENTS)))
    return tally
