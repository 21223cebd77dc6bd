"""A real server with the built-in pack, shared by the tests of this folder, and clients for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI
from server_requests import DEADLINE_S, QUEUE

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack


@pytest.fixture(scope="package")
def server(pack: Pack) -> Iterator[ServerProcess]:
    """Two requests at once, three in the queue; it has to stop cleanly at the end."""
    with running_server("--deadline", str(DEADLINE_S), "--parallel", "2", "--queue", str(QUEUE)) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text("utf-8")


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client; before and after the test the server must be idle."""
    assert server.wait_until_idle(5)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
        assert server.wait_until_idle(5)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[OpenAI]:
    """OpenAI's own client."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
