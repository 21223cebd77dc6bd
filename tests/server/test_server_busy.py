"""A server that is busy: clients that leave or do not read, and a queue that is full."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import httpx
import pytest
from server_requests import ASKED, DEADLINE_S, LONG, QUEUE, SHORT, ask, chunks, error

from edge_tts.bench.server_process import ServerProcess


@pytest.mark.parametrize("body", [LONG, {**LONG, "n": 4}])
def test_a_client_that_leaves_frees_its_slot(http: httpx.Client, server: ServerProcess, body: dict[str, Any]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.5)
    assert server.wait_until_idle(3)
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        found = chunks(response)  # the response is closed with it
        next(found)
        assert server.metric("requests_in_flight") == 1
    assert server.wait_until_idle(3)


def test_a_reader_that_does_not_read_holds_no_slot(server: ServerProcess) -> None:
    body = json.dumps({**ASKED, "stream": True, "edge": {"strategy": "majority:n=16", "events": True}}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((host, int(port)))
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert reader.recv(12) == b"HTTP/1.1 200"
        assert server.wait_until_idle(DEADLINE_S + 2)
        text = b""
        while not text.endswith(b"0\r\n\r\n"):  # the end of a chunked body
            text += reader.recv(65536)
    assert b"data: [DONE]" in text


def test_a_full_queue(http: httpx.Client, server: ServerProcess) -> None:
    body = {**LONG, "stream": True}
    with httpx.Client(base_url=server.url, timeout=60) as other:
        requests = [other.build_request("POST", "/v1/chat/completions", json=body) for _ in range(2)]
        running = [other.send(request, stream=True) for request in requests]
        assert server.metric("requests_in_flight") == 2
        ending: list[int] = []

        def wait() -> None:
            ending.append(httpx.post(f"{server.url}/v1/chat/completions", json=SHORT, timeout=60).status_code)

        waiting = [threading.Thread(target=wait) for _ in range(QUEUE)]
        for thread in waiting:
            thread.start()
        ends = time.monotonic() + 5
        while server.metric("queue_length") < QUEUE:
            assert time.monotonic() < ends
        for extra in ({}, {"stream": True}):
            response = ask(http, {**SHORT, **extra})
            assert response.status_code == 503
            assert error(response)["code"] == "queue_full"
            assert 1 <= int(response.headers["retry-after"]) <= DEADLINE_S * QUEUE
        for response in running:
            response.close()
        for thread in waiting:
            thread.join(30)
    assert ending == [200] * QUEUE
    assert ask(http, SHORT).status_code == 200


def test_time_in_the_queue_counts(http: httpx.Client, server: ServerProcess) -> None:
    body = {**LONG, "stream": True}
    with httpx.Client(base_url=server.url, timeout=60) as other:
        requests = [other.build_request("POST", "/v1/chat/completions", json=body) for _ in range(2)]
        running = [other.send(request, stream=True) for request in requests]
        began = time.monotonic()
        response = ask(http, {**SHORT, "edge": {"strategy": "greedy", "deadline_s": 0.4}})
        assert response.status_code == 503
        assert error(response)["code"] == "queue_timeout"
        assert 0.4 <= time.monotonic() - began < 2
        for held in running:
            held.close()
