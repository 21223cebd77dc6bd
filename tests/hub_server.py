"""A server on this machine that speaks as much of the Hugging Face hub's API as fetching a file needs.

Use ``serve()`` for a server, ``HubServer.patch`` to turn this process to it, ``HubServer.environment`` for others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_right"


@dataclass
class Repository:
    """What one repository holds, and how it misbehaves."""

    files: dict[str, bytes | Path]
    gated: bool = False
    """Files want ``TOKEN``; the description does not, as on the hub."""
    stated: dict[str, str] = field(default_factory=dict)
    """sha256 to state for a file instead of the right one."""


class HubServer:
    """Repositories by name, and the requests that came."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.cuts: list[int] = []
        """Each download ends after so many bytes of its answer, in order; then downloads are complete."""
        self.gate = threading.Event()
        """Downloads wait while it is clear."""
        self.gate.set()
        self.seconds = 0.0
        """What a download takes."""
        self.status: int | None = None
        """Answer everything with this status."""
        self.resumes = True
        """Whether it sends only what is asked for."""
        self.ranges: list[str | None] = []
        """The ``Range`` of each download, in order."""
        hub = self

        class Bound(_Handler):
            server_of = hub

        self._server = _Server(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def add(self, repo: str, files: Mapping[str, bytes | Path], gated: bool = False) -> Repository:
        """Add a repository with these files, each content or a file to send."""
        self.repositories[repo] = Repository(dict(files), gated)
        return self.repositories[repo]

    def patch(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Turn huggingface_hub in this process to this server, with its cache in ``home``."""
        from huggingface_hub import constants, file_download

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables that turn another process to this server."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serve() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def content_of(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that leave, which would look like the command's own words."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_of: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        if self.server_of.status:
            self._answer(self.server_of.status)
        elif path.startswith("api/models/"):
            self._describe(path.removeprefix("api/models/"))
        elif path.startswith("content/"):
            self._send(path.removeprefix("content/"))
        else:
            self._resolve(path)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _describe(self, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        found = self.server_of.repositories.get(repo)
        if not found:
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self._sibling(found, name) for name in found.files]
            self._answer(200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def _sibling(self, repository: Repository, name: str) -> dict[str, object]:
        size, sha256 = self._facts(repository, name)
        described: dict[str, object] = {"rfilename": name, "size": size, "blobId": "0" * 40}
        if name.endswith(".gguf"):
            described["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 135}
        return described

    def _facts(self, repository: Repository, name: str) -> tuple[int, str]:
        content = content_of(repository.files[name])
        return len(content), repository.stated.get(name) or hashlib.sha256(content).hexdigest()

    def _resolve(self, path: str) -> None:
        """Answer as the hub does for a large file: facts in headers, content elsewhere."""
        repo, _, rest = path.partition("/resolve/")
        name = rest.partition("/")[2]
        found = self.server_of.repositories.get(repo)
        if not found:
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif found.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(403, {"X-Error-Code": "GatedRepo"})
        elif name not in found.files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            size, sha256 = self._facts(found, name)
            facts = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(size)}
            # The hub offers Xet beside HTTP; whoever takes it up finds nothing here.
            facts |= {"X-Xet-Hash": sha256, "X-Xet-Refresh-Route": "/no/xet"}
            self._answer(302, facts | {"Location": f"{self.server_of.url}/content/{repo}/{name}"})

    def _send(self, path: str) -> None:
        owner, repository, name = path.split("/", 2)
        content = content_of(self.server_of.repositories[f"{owner}/{repository}"].files[name])
        wanted = self.headers.get("Range")
        self.server_of.ranges.append(wanted)
        self.server_of.gate.wait(60)
        wanted = wanted if self.server_of.resumes else None
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if begin >= len(content):
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.server_of.cuts.pop(0) if self.server_of.cuts else None
        self._write(content[begin:][:cut], self.server_of.seconds / len(content))
        if cut is not None:
            self.close_connection = True

    def _write(self, content: bytes, seconds_per_byte: float) -> None:
        piece = max(1, len(content) // 50) if seconds_per_byte else max(1, len(content))
        with contextlib.suppress(ConnectionError):  # whoever downloaded it was killed
            for at in range(0, len(content), piece):
                self.wfile.write(content[at : at + piece])
                time.sleep(piece * seconds_per_byte)

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
