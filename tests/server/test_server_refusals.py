"""Requests that the server refuses: what they are told, and that nothing else suffers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from server_requests import ASKED, DEADLINE_S, SHORT, ask, error

from edge_tts.bench.server_process import ServerProcess

JSON = {"Content-Type": "application/json"}


def user(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"colour": "blue"}, "colour", "this server has no field colour"),
        ({"presence_penalty": 0.5}, "presence_penalty", "must be 0 here"),
        ({"frequency_penalty": -1}, "frequency_penalty", "must be 0 here"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"top_k": -2}, "top_k", "greater than or equal to -1"),
        ({"min_p": 1}, "min_p", "less than 1"),
        ({"audio": {"voice": "x"}}, "audio", "must be null here"),
        ({"logprobs": True}, "logprobs", "must be false here"),
        ({"tools": [{"type": "function"}]}, "tools", "must be [] here"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "must be"),
        ({"model": 5}, "model", "should be a valid string"),
        ({"messages": []}, "messages", "should have at least 1 item"),
        ({"messages": "hello"}, "messages", "should be a valid list"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "the last message must have the role 'user'"),
        (
            {"messages": [*ASKED["messages"], {"role": "assistant", "content": "It"}]},
            "messages",
            "the last message must",
        ),
        ({"messages": [{"role": "tool", "content": "x"}, *ASKED["messages"]]}, "messages.0.role", "runs no tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, *ASKED["messages"]]},
            "messages.0.content",
            "only parts of type 'text'",
        ),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "should be 'system'"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages.0.contents", "has no field"),
        ({"messages": ["hello"]}, "messages.0", "should be"),
        (user(""), "messages.0.content", "the question is empty"),
        (user(None), "messages.0.content", "the question is empty"),
        (user(5), "messages.0.content", "should be a string or a list of parts"),
        (user("\x00\x01"), "messages.0.content", "control character"),
        (user("a" * 30_000), "messages.0.content", "30,000 characters"),
        (user("word " * 2000), "messages", "the policy's context is"),
        (
            user([{"type": "image_url", "image_url": {"url": "data:,"}}]),
            "messages.0.content",
            "only parts of type 'text'",
        ),
        (user([{"type": "text"}]), "messages.0.content", "only parts of type"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 9}, "n", "less than or equal to 8"),
        ({"n": "2"}, "n", "should be a valid integer"),
        ({"n": 1.5}, "n", "should be a valid integer"),
        ({"n": True}, "n", "should be a valid integer"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"seed": 10**4000}, "seed", ""),
        ({"stop": 5}, "stop", "a list of at most 4"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "a list of at most 4"),
        ({"stop": ""}, "stop", "non-empty"),
        ({"stream": "yes"}, "stream", "should be a valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        ({"stream": True, "stream_options": {"usage": 1}}, "stream_options.usage", "has no field"),
        ({"edge": {"strategy": "guess"}}, "edge.strategy", "unknown strategy 'guess'"),
        ({"edge": {"strategy": "beam:q=2"}}, "edge.strategy", "cannot have 'q=2'"),
        ({"edge": {"generations": 0}}, "edge.generations", "greater than or equal to 1"),
        ({"edge": {"deadline_s": 0}}, "edge.deadline_s", "greater than 0"),
        ({"edge": {"deadline_s": DEADLINE_S + 1}}, "edge.deadline_s", f"at most {DEADLINE_S}"),
        ({"edge": {"flops": -1}}, "edge.flops", "greater than 0"),
        ({"edge": {"speed": 1}}, "edge.speed", "has no field"),
        ({"edge": []}, "edge", "should be"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_fields_are_named(http: httpx.Client, change: dict[str, Any], param: str, said: str, stream: bool) -> None:
    response = ask(http, {**ASKED, **({"stream": True} if stream and "stream_options" not in change else {}), **change})
    assert response.status_code == 400
    found = error(response)
    assert found["param"] == param
    assert said in found["message"]
    assert len(found["message"]) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"model": ' + b"9" * 10_000 + b"}",
        b'{"model": "smol-math", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "smol-math", "messages": [{"role": "user", "content": "1+1"}], "temperature": NaN}',
        b'{"model": "smol-math", "messages": [{"role": "user", "content": "1+1"}], "edge": {"flops": Infinity}}',
    ],
)
def test_invalid_bodies(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == 400
    assert len(error(response)["message"]) < 400
    assert http.get("/health").status_code == 200


def test_a_body_that_is_not_json(http: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}):
        response = http.post("/v1/chat/completions", content=json.dumps(SHORT).encode(), headers=headers)
        assert response.status_code == 400
        assert "application/json" in error(response)["message"]


def test_unknown_models_and_paths(http: httpx.Client) -> None:
    cases = [
        (ask(http, {**SHORT, "model": "gpt-5"}), 404, "model_not_found"),
        (http.get("/v1/models/gpt-5"), 404, "model_not_found"),
        (http.get("/v1/embeddings"), 404, None),
        (http.get("/v1/completions"), 405, None),
        (http.get("/v1/chat/completions"), 405, None),
        (http.put("/v1/models", json={}), 405, None),
        (http.get("/docs"), 404, None),
        (http.get("/redoc"), 404, None),
    ]
    for response, status, code in cases:
        assert response.status_code == status
        assert error(response)["code"] == code
    assert http.get("/v1/chat/completions").headers["allow"] == "POST"


def test_the_official_client_understands_refusals(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**ASKED, temperature=2.5)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "1+1"}])
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize("size", [2**20 + 1, 2**23])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(http: httpx.Client, size: int, chunked: bool) -> None:
    content = iter([b"x" * 65536] * (size // 65536 + 1)) if chunked else b"x" * size
    response = http.post("/v1/chat/completions", content=content, headers=JSON)
    assert response.status_code == 413
    assert error(response)["code"] == "body_too_long"
    assert ask(http, SHORT).status_code == 200


def test_other_hosts_and_origins_are_refused(http: httpx.Client, server: ServerProcess) -> None:
    port = server.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert http.get("/v1/models", headers={"Host": host}).status_code == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", "[", "localhost.evil"):
        response = http.get("/v1/models", headers={"Host": host})
        assert response.status_code == 403
        assert error(response)["code"] == "wrong_host"
    for origin in ("http://evil.example", "null", "", "http://[", f"http://localhost:{port}"):
        response = http.post("/v1/chat/completions", json=SHORT, headers={"Origin": origin})
        assert response.status_code == 403
        assert error(response)["code"] == "wrong_origin"
        assert "access-control-allow-origin" not in response.headers
    assert http.get("/v1/models", headers={"Origin": server.url}).status_code == 200
    preflight = http.options("/v1/chat/completions", headers={"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 405
