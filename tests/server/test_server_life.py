"""How a server starts, refuses to start, stops, and survives the death of its models."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI
from server_requests import ASKED, LONG, SHORT, ask, chunks, error

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack

TOKEN = "an-odd secret/with=signs"


def serve(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``edge-reason serve`` with options that it refuses at once."""
    command = [sys.executable, "-m", "edge_tts", "serve", *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env={**os.environ, **variables}, check=False
    )


def test_other_hosts_need_a_token(home: Path) -> None:
    for host in ("0.0.0.0", "::"):
        done = serve("--host", host, "--port", "0", EDGE_REASON_TOKEN="")
        assert done.returncode == 2
        assert "a token is needed" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_token(pack: Pack) -> None:
    with running_server("--token", TOKEN, "--host", "0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        for headers in (
            {},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer \xe9"},
        ):
            for path in ("/v1/models", "/metrics", "/nothing"):
                refused = httpx.get(url + path, headers={name: v.encode("latin-1") for name, v in headers.items()})
                assert refused.status_code == 401
                assert error(refused)["code"] == "invalid_api_key"
                assert refused.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(url).status_code == 200
        with OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
            # With a token, any host name and any origin is allowed.
            headers = {"Host": "my.example", "Origin": "http://other.example"}
            answer = client.chat.completions.create(**ASKED, extra_body={"edge": SHORT["edge"]}, extra_headers=headers)
        assert answer.choices[0].finish_reason == "stop"
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_lets_requests_end(pack: Pack, number: int) -> None:
    with running_server("--parallel", "1") as server, httpx.Client(base_url=server.url, timeout=60) as http:
        waiting: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: waiting.append(httpx.post(f"{server.url}/v1/chat/completions", json=LONG, timeout=60))
        )
        edge = {**LONG["edge"], "events": True}
        with http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True, "edge": edge}) as response:
            found = chunks(response)
            next(found)
            thread.start()
            next(chunk for chunk in found if chunk.get("edge", {}).get("event", {}).get("type") == "best")
            began = time.monotonic()
            server.process.send_signal(number)
            *_, last = found
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["edge"]["stop_reason"] == "cancelled"
        assert last["edge"]["answer"]
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 8
        thread.join(5)
        assert waiting[0].status_code == 503
        assert error(waiting[0])["code"] == "stopping"
        log = server.log.read_text("utf-8")
        assert log.endswith("stopped\n")
        assert "Traceback" not in log


# --- models that die -------------------------------------------------------------------------


def test_a_killed_child_and_a_deleted_pack(pack: Pack, tmp_path: Path) -> None:
    folder, away = tmp_path / "smol-math", tmp_path / "away"
    shutil.copytree(pack.folder, folder)
    with (
        running_server("--isolate", "--pack", str(folder)) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        answer = ask(http, SHORT).json()["choices"]
        kill_models(server)
        assert ask(http, SHORT).json()["choices"] == answer  # a new child
        with http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as response:
            found = chunks(response)
            next(found)
            kill_models(server)
            *_, last = found
        assert "SIGKILL" in last["error"]["message"]
        folder.rename(away)
        kill_models(server)
        refused = ask(http, SHORT)
        assert refused.status_code == 500
        assert str(folder) in error(refused)["message"]
        assert http.get("/health").status_code == 200
        away.rename(folder)
        assert ask(http, SHORT).json()["choices"] == answer
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text("utf-8")


def test_a_deleted_pack_is_still_in_memory(pack: Pack, tmp_path: Path) -> None:
    folder = tmp_path / "smol-math"
    shutil.copytree(pack.folder, folder)
    with running_server("--pack", str(folder)) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        shutil.rmtree(folder)
        assert ask(http, SHORT).status_code == 200
        assert server.stop() == 0


def kill_models(server: ServerProcess) -> None:
    children = psutil.Process(server.process.pid).children()
    models = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    for child in models:
        child.kill()
    psutil.wait_procs(models, 5)
