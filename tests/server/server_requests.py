"""Requests for the built-in pack, and how their answers are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from questions import HARD

DEADLINE_S = 20
QUEUE = 3
"""Limits of the server that the tests share."""
QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
ASKED = {"model": "smol-math", "messages": [{"role": "user", "content": QUESTION}]}
SHORT = {**ASKED, "edge": {"strategy": "greedy"}}
LONG = {**ASKED, "messages": [{"role": "user", "content": HARD}], "edge": {"strategy": "majority:n=1024"}}
"""Runs until it is cancelled or the deadline is over."""


def ask(http: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    return http.post("/v1/chat/completions", json=body)


def chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The chunks of a stream up to its end."""
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def error(response: httpx.Response) -> dict[str, Any]:
    """The error of a refused request, which must be in OpenAI's format."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == ("invalid_request_error" if response.status_code < 500 else "server_error")
    found: dict[str, Any] = body["error"]
    return found
