"""A package index on this machine: wheels of data, served as pip reads them."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class IndexServer:
    """Wheels by package, and which of them were fetched."""

    def __init__(self) -> None:
        self._wheels: dict[str, tuple[str, bytes]] = {}
        self.cuts: dict[str, int] = {}
        """Bytes after which the answer with a package's wheel ends."""
        self.downloads: list[str] = []
        index = self

        class Bound(_Handler):
            server_of = index

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, package: str, version: str, data: Mapping[str, bytes]) -> None:
        """Offer a wheel of ``package`` (an import name) that holds ``data`` by path inside the package."""
        self._wheels[package] = (f"{package}-{version}-py3-none-any.whl", _wheel(package, version, data))

    def wheel(self, package: str) -> bytes:
        return self._wheels[package][1]

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have pip, run from this process, use this index and no other."""
        for variable in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{self.url}/simple")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serve() -> Iterator[IndexServer]:
    server = IndexServer()
    try:
        yield server
    finally:
        server.close()


def _wheel(package: str, version: str, data: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    about = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "raise RuntimeError('a wheel of data is never imported')")
        for path, content in data.items():
            archive.writestr(f"{package}/{path}", content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return packed.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server_of: IndexServer

    def do_GET(self) -> None:
        folder, _, rest = self.path.strip("/").partition("/")
        package = rest.replace("-", "_") if folder == "simple" else rest.partition("-")[0]
        found = self.server_of._wheels.get(package)
        if not found:
            self.send_error(404)
        elif folder == "simple":
            name, content = found
            link = f'<a href="/wheels/{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
            self._send(f"<!DOCTYPE html><html><body>{link}</body></html>".encode(), "text/html")
        else:
            self.server_of.downloads.append(package)
            self._send(found[1], "application/zip", self.server_of.cuts.get(package))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, content: bytes, kind: str, cut: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut])
