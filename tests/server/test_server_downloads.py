"""A download begun on the page: it can be cancelled, there and by request, and goes on later where it stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hub_server
import psutil
import pytest
from browser import READY, Browser, needs_browser
from server_requests import error
from tiny_model import write_tiny_model

from edge_tts.bench.server_process import ServerProcess, running_server

NAME = "qwen2.5-coder-0.5b"
CONTENT = b"GGUF" + bytes(25 * 2**20)
"""What is kept of a cut download is whole chunks of 10 MB."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    """A hub that has the one catalogued model; it is no model, so that it cannot be loaded."""
    entry = {"size": len(CONTENT), "sha256": f'"{hashlib.sha256(CONTENT).hexdigest()}"', "file": '"tiny.gguf"'}
    lines = "\n".join(f"{key} = {value}" for key, value in entry.items())
    (tmp_path / "catalogue.toml").write_text(
        f'[models."{NAME}"]\n{lines}\nsources = [{{ hub = "a/b", file = "tiny.gguf" }}]\n'
    )
    with hub_server.serve() as hub:
        hub.add("a/b", {"tiny.gguf": CONTENT})
        for key, value in {**hub.environment(tmp_path), "EDGE_REASON_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(key, value)
        yield hub
        hub.gate.set()


@pytest.fixture
def server(hub: hub_server.HubServer, tmp_path: Path) -> Iterator[ServerProcess]:
    own = write_tiny_model(tmp_path / "own.gguf")
    with running_server("--model", str(own), "--memory", "1500") as running:
        yield running
        assert "Traceback" not in running.log.read_text("utf-8")


def models(server: ServerProcess) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/page/models", timeout=60).json())


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_cancelled_download_goes_on_where_it_stopped(hub: hub_server.HubServer, server: ServerProcess) -> None:
    refused = httpx.delete(f"{server.url}/page/model", timeout=60)
    assert (refused.status_code, error(refused)["code"]) == (409, "not_downloading")
    hub.seconds = 20.0
    httpx.post(f"{server.url}/page/model", json={"name": NAME}, timeout=60)
    wait(lambda: (loading := models(server)["loading"]) and loading["can_cancel"] and loading["share"] > 0.3)
    cancelled = httpx.delete(f"{server.url}/page/model", timeout=60)
    assert cancelled.status_code == 202
    wait(lambda: models(server)["loading"] is None, 10)
    found = models(server)
    assert (found["current"], found["problem"]) == ("own", "")
    assert not [model for model in found["models"] if model["name"] == NAME and model["is_here"]]
    hub.seconds = 0.0
    httpx.post(f"{server.url}/page/model", json={"name": NAME}, timeout=60)
    wait(lambda: models(server)["loading"] is None)
    assert hub.ranges == [None, "bytes=10485760-"]
    assert models(server)["problem"].startswith(f"{NAME} was not loaded: ")  # it is here, and no model
    assert models(server)["current"] == "own"


def test_stopping_the_server_ends_a_download(hub: hub_server.HubServer, server: ServerProcess) -> None:
    hub.gate.clear()
    httpx.post(f"{server.url}/page/model", json={"name": NAME}, timeout=60)
    wait(lambda: bool(hub.ranges))
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    wait(lambda: not [child for child in children if child.is_running()], 5)


@needs_browser
def test_the_page_has_a_button_for_it(hub: hub_server.HubServer, server: ServerProcess, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "browser", 1280)
    try:
        browser.open(server.url)
        browser.wait(READY)
        browser.run("document.getElementById('about').open = true")
        browser.wait("document.getElementById('models').options.length > 1")
        assert browser.text("#cancel") == ""
        browser.fill(models=NAME)
        browser.run("document.getElementById('models').dispatchEvent(new Event('change'))")
        assert browser.text("#use") == "Download 26 MB and load"
        hub.gate.clear()
        browser.click("#use")
        wait(lambda: bool(hub.ranges))
        browser.wait("!document.getElementById('cancel').hidden")
        assert (browser.text("#cancel"), browser.text("#use")) == ("Cancel", "")
        browser.click("#cancel")
        browser.wait("document.getElementById('cancel').hidden && !document.getElementById('models').disabled")
        assert (browser.text("#use"), browser.text("#loading")) == ("Load", "")
        assert models(server)["loading"] is None
        assert browser.said == []
    finally:
        browser.close()
