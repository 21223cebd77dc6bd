"""The server's limits, and that clients who hit them leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat

import httpx
import pytest
import uvicorn
from server_requests import DEADLINE_S

from edge_tts.bench import load
from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack
from edge_tts.server import app, guard, protocol
from edge_tts.server.admission import Admission
from edge_tts.server.serve import listen, make_server
from edge_tts.server.served import ServedModel
from edge_tts.solver import Solver

PENCILS = "Tom has {} boxes with 8 pencils each. How many pencils does he have?"
PATH = "/v1/chat/completions"


def body(number: int = 12, strategy: str = "greedy", **fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": PENCILS.format(number)}]
    return {"model": "smol-math", "messages": messages, "edge": {"strategy": strategy}, **fields}


# --- limits: the server runs in this process, so that they can be lowered ----------------------------------


@dataclass(frozen=True)
class Local:
    """A server in a thread."""

    port: int
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    admission: Admission

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.settimeout(10)
        return made

    def tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)


@pytest.fixture(scope="module")
def local(pack: Pack) -> Iterator[Local]:
    listening, _ = listen("127.0.0.1", 0, None)
    loop, admission = asyncio.new_event_loop(), Admission(2, 4)
    with Solver(pack, generations=4) as solver:
        server = make_server(ServedModel(solver, admission))
        thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(sockets=[listening]),))
        thread.start()
        yield Local(listening.getsockname()[1], server, loop, admission)
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
    loop.close()


def received(connection: socket.socket) -> bytes:
    """Everything received until the other side closes or resets the connection."""
    text = b""
    try:
        while part := connection.recv(65536):
            text += part
    except ConnectionResetError:
        pass
    return text


def refusal(text: bytes) -> tuple[int, str | None]:
    """Status and code of a raw response in OpenAI's error shape."""
    head, _, rest = text.partition(b"\r\n\r\n")
    found = json.loads(rest)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return int(head.split()[1]), found["code"]


def drip(connection: socket.socket, part: bytes, ends: float) -> None:
    """Send ``part`` again and again until the other side closes; fails at the time ``ends``."""
    while time.monotonic() < ends:
        try:
            connection.sendall(part)
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the other side did not close")


def test_a_slow_header(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.5)
    with local.connect() as silent, local.connect() as slow:
        began = time.monotonic()
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        drip(slow, b"X-A: b\r\n", began + 5)
        assert 0.4 < time.monotonic() - began < 3
        assert received(silent) == b""


def test_a_slow_body(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.5)
    with local.connect() as slow:
        slow.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode())
        time.sleep(0.2)
        slow.sendall(b"{")
        assert b"408" in slow.recv(12)
        drip(slow, b" ", time.monotonic() + 5)


def test_a_body_without_end(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.5)
    with local.connect() as endless:
        endless.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n".encode())
        assert b"413" in endless.recv(12)
        drip(endless, b" " * 1000, time.monotonic() + 5)


def test_a_client_that_never_reads(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for pages until all buffers are full; the kernel's alone hold some megabytes."""
    monkeypatch.setattr(protocol, "SEND_SECONDS", 0.5)
    with socket.socket() as deaf:
        # set before connecting: if the window shrinks later, the kernel drops data already allowed, resets included
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", local.port))
        deaf.setblocking(False)
        began = time.monotonic()
        while not local.server.server_state.connections:
            assert time.monotonic() - began < 5
        while local.server.server_state.connections:
            with suppress(BlockingIOError, ConnectionError):
                deaf.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
            assert time.monotonic() - began < 30
            time.sleep(0.001)
        assert time.monotonic() - began > 0.4
        deaf.settimeout(10)
        with pytest.raises(ConnectionError):
            any(map(deaf.sendall, repeat(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)))
    assert httpx.get(f"{local.url}/health").status_code == 200


def test_too_many_connections(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 20)
    held = [local.connect() for _ in range(20)]
    with local.connect() as more:
        assert refusal(received(more)) == (503, "connections_full")
    held[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert received(held[0]).endswith(b'{"status":"ok"}')
    for connection in held:
        connection.close()
    assert httpx.get(f"{local.url}/health").status_code == 200


def test_thousands_of_connections(local: Local) -> None:
    """After each wave the server answers again: at once, or when it has seen that the wave is gone."""
    for _ in range(10):
        wave = [local.connect() for _ in range(300)]
        for connection in wave:
            connection.close()
        ends = time.monotonic() + 5
        while (status := httpx.get(f"{local.url}/health", timeout=10).status_code) != 200:
            assert status == 503
            assert time.monotonic() < ends


@pytest.mark.parametrize("text", [b"HELLO\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET /" + b"a" * 100_000])
def test_input_that_is_not_http(local: Local, text: bytes) -> None:
    with local.connect() as connection:
        connection.sendall(text + b"\r\n\r\n")
        assert refusal(received(connection)) == (400, None)


@pytest.mark.parametrize("stream", [False, True])
def test_an_unexpected_exception(
    local: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(app, "understand_chat", lambda *_: 1 / 0)
        response = httpx.post(local.url + PATH, json=body(stream=stream))
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert httpx.post(local.url + PATH, json=body(stream=stream), timeout=20).status_code == 200
    assert [record.message.partition(" (")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "internal error: ZeroDivisionError: division by zero"
    ]


def test_no_task_is_left(local: Local) -> None:
    before = local.tasks()
    with httpx.Client(base_url=local.url) as http:
        for i in range(20):
            with pytest.raises(httpx.ReadTimeout):
                http.post(PATH, json=body(i, "majority:n=64"), timeout=0.05)
            with http.stream("POST", PATH, json=body(i, "majority:n=64", stream=True), timeout=20) as response:
                if i % 2:
                    next(response.iter_lines())
    ends = time.monotonic() + 5
    while local.tasks() > before or local.admission.running:
        assert time.monotonic() < ends, local.tasks()
        time.sleep(0.05)


# --- load: the server runs in its own process -----------------------------------------------------------


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server("--parallel", "2", "--queue", "20", "--deadline", "60") as running:
        yield running
        assert running.stop() == 0
        # Nothing but how it starts and that it stops.
        said = [line.partition(" ")[0] for line in running.log.read_text("utf-8").splitlines()]
        assert said == ["loading", "model:", "smol-math", "memory:", "time:", "stopped"]


def test_clients_at_the_same_time(server: ServerProcess) -> None:
    """Each client gets the answer to its own question."""

    def ask(number: int) -> str:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            if number % 2:
                answer = http.post(PATH, json=body(number)).json()
                return str(answer["choices"][0]["message"]["content"])
            with http.stream("POST", PATH, json=body(number, stream=True)) as response:
                found = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
            return "".join(c["delta"].get("content", "") for chunk in found for c in chunk["choices"])

    numbers = range(11, 27)
    with ThreadPoolExecutor(len(numbers)) as pool:
        answers = list(pool.map(ask, numbers))
    assert [answer.split("\n")[0] for answer in answers] == [f"{n}*8={8 * n}" for n in numbers]


def test_nothing_is_left_after_hundreds_of_requests(server: ServerProcess) -> None:
    draw = random.Random(0)
    bad = [{"n": 0}, {"model": "none"}, {"temperature": 9}, {"colour": 1}, {"messages": []}]

    def small(http: httpx.Client) -> int:
        return http.get(draw.choice(["/health", "/v1/models", "/metrics", "/", "/nothing"])).status_code

    def wrong(http: httpx.Client) -> int:
        return http.post(PATH, json=body() | draw.choice(bad)).status_code

    def good(http: httpx.Client) -> int:
        return http.post(PATH, json=body(draw.randrange(2, 99), max_tokens=4)).status_code

    def streamed(http: httpx.Client) -> int:
        with http.stream("POST", PATH, json=body(draw.randrange(2, 99), max_tokens=4, stream=True)) as response:
            response.read()
            return response.status_code

    def left(http: httpx.Client) -> int:
        try:
            return http.post(PATH, json=body(5, "majority:n=64"), timeout=0.02).status_code
        except httpx.ReadTimeout:
            return 499

    kinds: list[Callable[[httpx.Client], int]] = [*[small] * 6, *[wrong] * 6, good, streamed, left]

    def run(requests: int) -> set[int]:
        def client(count: int) -> set[int]:
            with httpx.Client(base_url=server.url, timeout=60) as http:
                return {draw.choice(kinds)(http) for _ in range(count)}

        with ThreadPoolExecutor(8) as pool:
            seen = set().union(*pool.map(client, [requests // 8] * 8))
        assert server.wait_until_idle(5)
        return seen

    run(160)  # warm
    before, memory = server.handles(), server.memory_mb()
    assert run(480) <= {200, 400, 404, 499, 503}
    ends = time.monotonic() + 10  # idle connections close after five seconds
    while server.handles() != before and time.monotonic() < ends:
        time.sleep(0.2)
    after = server.handles()
    assert after["files"] <= before["files"]
    assert after["threads"] <= before["threads"]
    assert server.memory_mb() <= 1.05 * memory


def test_a_mixed_load_is_answered_or_refused_in_time(server: ServerProcess) -> None:
    questions = [PENCILS.format(number) for number in range(3, 9)]
    strategies = ("greedy", "majority:n=4", "adaptive:n=8")
    tally = asyncio.run(load.mixed_load(server, "smol-math", strategies, questions, DEADLINE_S, 6.0, seed=0))
    assert server.wait_until_idle(10)
    found = tally.summary()
    assert found["requests"] > load.BURST
    assert found["unexpected"] == []
    assert found["statuses"]["whole"]["200"] > 0
    assert found["deadlines"]["requests"] >= load.BURST
    assert found["deadlines"]["of_what_is_allowed"]["p50"] < 1


def test_lateness_is_told_in_seconds_and_in_parts_of_what_is_allowed() -> None:
    found = load.lateness([(0.5, 1.0), (10.275, 10.0), (21.0, 19.0)])
    assert found["late_seconds"]["p50"] == 0.275
    assert found["of_what_is_allowed"] == {"p50": 0.5, "p95": 2.0, "p99": 2.0, "max": 2.0}
