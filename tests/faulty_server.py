"""A chat server with every fault there is, for clients that have to cope."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_tts.runtimes.endpoint import EndpointSettings


class Faulty:
    """An HTTP server whose answers are given one by one; the last one is given for ever."""

    def __init__(self, *script: Callable[[Handler], None]) -> None:
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        self.most_at_once = 0
        self.left = threading.Event()
        """A client went away from an answer that stalled."""
        self._lock = threading.Lock()
        self._at_once = 0
        faulty = self

        class Bound(Handler):
            server_of = faulty

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.settings = EndpointSettings(
            f"http://127.0.0.1:{self._server.server_port}", "big", timeout_s=5, retries=1, max_tokens=20
        )

    def take(self, handler: Handler, content: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(content)
            self.authorization.append(handler.headers["Authorization"])
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer(handler)
        finally:
            with self._lock:
                self._at_once -= 1

    def __enter__(self) -> Faulty:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    server_of: Faulty

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked = content
        self.server_of.take(self, content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def head(self, status: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def event(self, content: Any) -> None:
        self.wfile.write(f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode())
        self.wfile.flush()


def chunk(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}


def right(*answers: str, seconds: float = 0.0) -> Callable[[Handler], None]:
    """A stream with a completion for each answer, as many as were asked for, interleaved; each has 5 tokens."""

    def answer(handler: Handler) -> None:
        handler.head(200, "text/event-stream")
        time.sleep(seconds)
        given = range(min(handler.asked.get("n", 1), len(answers)))
        for index in given:
            handler.event(chunk(index, "so\n#### "))
        for index in given:
            handler.event(chunk(index, answers[index]))
            handler.event(chunk(index, "", "stop"))
        usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(given), "total_tokens": 10 + 5 * len(given)}
        handler.event({"choices": [], "usage": usage})
        handler.event("[DONE]")

    return answer


def cut(handler: Handler) -> None:
    handler.head(200, "text/event-stream")
    handler.event(chunk(0, "#### 1"))


def cut_in_chunk(handler: Handler) -> None:
    """The connection ends inside a chunk of HTTP's own."""
    handler.protocol_version = "HTTP/1.1"
    handler.head(200, "text/event-stream", Transfer_Encoding="chunked")
    handler.wfile.write(b"ff\r\ndata: ")


def stall(handler: Handler) -> None:
    """Comments keep the connection alive, and nothing comes."""
    handler.head(200, "text/event-stream")
    handler.event(chunk(0, "#### 1"))
    try:
        while True:
            handler.wfile.write(b": ping\n\n")
            time.sleep(0.05)
    except OSError:
        handler.server_of.left.set()


def silence(handler: Handler) -> None:
    time.sleep(1.5)


def status(code: int, body: str = "", **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.head(code, "application/json", **headers)
        handler.wfile.write(body.encode())

    return answer


def page(handler: Handler) -> None:
    handler.head(200, "text/html")
    handler.wfile.write(b"<html>Welcome to nginx</html>")


def stream_of(*contents: Any) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.head(200, "text/event-stream")
        for content in contents:
            handler.event(content)

    return answer
