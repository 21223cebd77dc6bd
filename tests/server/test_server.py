"""The server as its clients see it: OpenAI's client, curl, and plain HTTP; every server here is a real one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from server_requests import ASKED, LONG, QUESTION, SHORT, ask, chunks, error

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.core import Budget
from edge_tts.packs.pack import Pack
from edge_tts.server.reply import EVENT_NAMES
from edge_tts.solver import Solver

DEADLINE_S = 20
QUEUE = 3
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server("--deadline", str(DEADLINE_S), "--parallel", "2", "--queue", str(QUEUE)) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text("utf-8")


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    assert server.wait_until_idle(5)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
        assert server.wait_until_idle(5)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


# --- answers ---------------------------------------------------------------------------------


def test_an_answer_is_that_of_the_library(client: OpenAI, pack: Pack) -> None:
    answer = client.chat.completions.create(**ASKED, seed=7, extra_body={"edge": {"strategy": "weighted:n=4"}})
    with Solver(pack) as solver:
        result = solver.solve(QUESTION, "weighted:n=4", Budget(), 7)
    (choice,) = answer.choices
    assert choice.message.content == "\n".join(result.steps)
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == result.prompt_tokens
    assert answer.usage.completion_tokens == result.usage.generated_tokens
    assert answer.model_extra is not None
    edge = answer.model_extra["edge"]
    assert edge["answer"] == result.answer
    assert (edge["strategy"], edge["reason"], edge["seed"]) == ("weighted:n=4", "asked for", 7)
    assert edge["scores"] == pytest.approx(result.scores, abs=1e-5)
    assert edge["support"] == pytest.approx(result.support, abs=1e-4)
    assert edge["usage"]["policy_tokens"] == result.usage.policy_tokens


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED, extra_body={"edge": {"generations": 5}})
    extra = {"edge": {"generations": 5, "events": True}}
    content, events, ends, usage = "", [], [], None
    for chunk in client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}, extra_body=extra
    ):
        assert chunk.object == "chat.completion.chunk"
        edge = (chunk.model_extra or {}).get("edge", {})
        if "event" in edge:
            assert not chunk.choices
            assert not content  # the reasoning comes first
            events.append(edge["event"])
        for choice in chunk.choices:
            content += choice.delta.content or ""
            if choice.finish_reason:
                ends.append((choice.finish_reason, edge))
        usage = chunk.usage or usage
    assert content == whole.choices[0].message.content
    assert usage == whole.usage
    ((finish_reason, account),) = ends
    assert finish_reason == whole.choices[0].finish_reason
    assert account["strategy"] == whole.model_extra["edge"]["strategy"]  # type: ignore[index]
    assert account["difficulty"]["bin"] in range(5)
    assert {event["type"] for event in events} == set(EVENT_NAMES.values())
    for event in events:
        kind = next(kind for kind, name in EVENT_NAMES.items() if name == event["type"])
        assert set(event) == {"type", "choice", *kind.__dataclass_fields__}
    steps = [event["text"] for event in events if event["type"] == "step"]
    assert set(content.splitlines()) <= set(steps)


def test_the_client_gathers_a_stream_with_events(client: OpenAI) -> None:
    with client.chat.completions.stream(**ASKED, extra_body={"edge": {"generations": 2, "events": True}}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    whole = client.chat.completions.create(**ASKED, extra_body={"edge": {"generations": 2}})
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_every_choice_is_a_search_with_a_seed_of_its_own(http: httpx.Client) -> None:
    body = {**ASKED, "n": 3, "seed": 5, "edge": {"strategy": "majority:n=2"}}
    answer = ask(http, body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["edge"]["seed"] for choice in answer["choices"]] == [5, 6, 7]
    assert answer["edge"] == answer["choices"][0]["edge"]
    generated = sum(choice["edge"]["usage"]["generated_tokens"] for choice in answer["choices"])
    assert answer["usage"]["completion_tokens"] == generated
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        ends = [choice for chunk in chunks(response) for choice in chunk["choices"] if choice["finish_reason"]]
    assert [choice["index"] for choice in ends] == [0, 1, 2]


def test_the_last_user_message_is_the_question(http: httpx.Client) -> None:
    plain = ask(http, SHORT).json()
    parts = [{"type": "text", "text": QUESTION[:40]}, {"type": "text", "text": QUESTION[40:]}]
    messages = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None},
        {"role": "user", "content": parts, "name": "tom"},
        {"role": "assistant", "content": "42"},
    ]
    talked = ask(http, {**SHORT, "messages": messages}).json()
    assert talked["choices"] == plain["choices"]
    assert talked["usage"] == plain["usage"]


def test_stop_cuts_the_content(http: httpx.Client) -> None:
    content = ask(http, SHORT).json()["choices"][0]["message"]["content"]
    first, *_ = content.split("\n####")
    for stop in ("\n####", ["nowhere", "\n####"]):
        (choice,) = ask(http, {**SHORT, "stop": stop}).json()["choices"]
        assert choice["message"]["content"] == first
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "stopped"),
    [
        ({"max_tokens": 2}, "complete"),
        ({"max_completion_tokens": 2, "max_tokens": 100}, "complete"),
        ({"edge": {"strategy": "majority:n=64", "deadline_s": 0.05}}, "deadline"),
        ({"edge": {"strategy": "majority:n=4", "tokens": 1}}, "budget: tokens"),
    ],
)
def test_nothing_finished_is_said(http: httpx.Client, fields: dict[str, Any], stopped: str) -> None:
    answer = ask(http, {**SHORT, **fields}).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == ""
    assert choice["finish_reason"] == "length"
    assert answer["edge"]["finished"] is False
    assert answer["edge"]["answer"] is None
    assert answer["edge"]["stop_reason"] == stopped


def test_temperature_zero_draws_one_answer(http: httpx.Client) -> None:
    edge = {"strategy": "majority:n=4"}
    cold = ask(http, {**ASKED, "temperature": 0, "edge": edge}).json()
    assert cold["edge"]["support"] == 1.0
    assert cold["choices"][0]["message"] == ask(http, SHORT).json()["choices"][0]["message"]


def test_what_changes_nothing_is_accepted(http: httpx.Client) -> None:
    neutral = {
        "top_p": 1.0,
        "presence_penalty": 0,
        "logprobs": False,
        "tools": None,
        "response_format": {"type": "text"},
    }
    ignored = {"user": "me", "metadata": {"a": "b"}, "store": True, "reasoning_effort": "high"}
    nothing = {"seed": None, "stop": None, "stream": None, "n": None, "max_tokens": None, "temperature": None}
    answer = ask(http, {**SHORT, **neutral, **ignored, **nothing})
    assert answer.status_code == 200
    assert answer.json()["choices"] == ask(http, SHORT).json()["choices"]


def test_models_health_and_metrics(client: OpenAI, http: httpx.Client) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model
    assert model.id == "smol-math"
    assert model.model_extra is not None
    assert model.model_extra["edge"]["deadline_s"] == DEADLINE_S
    assert {"auto", "weighted", "revise"} <= set(model.model_extra["edge"]["strategies"])
    assert http.get("/health").json() == {"status": "ok"}

    def figures() -> dict[str, float]:
        lines = http.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = figures()
    usage = ask(http, {**ASKED, "edge": {"strategy": "weighted:n=2"}}).json()["edge"]["usage"]
    after = figures()
    grew = {name: after[name] - before.get(name, 0) for name in after}
    assert grew["edge_reason_policy_tokens_total"] == usage["policy_tokens"]
    assert grew["edge_reason_verifier_tokens_total"] == usage["verifier_tokens"]
    assert grew["edge_reason_request_seconds_count"] == 1
    assert grew["edge_reason_first_event_seconds_count"] == 1
    assert grew['edge_reason_requests_total{status="200"}'] == 2  # and the figures before
    assert after["edge_reason_requests_in_flight"] == after["edge_reason_queue_length"] == 0
    assert after["edge_reason_peak_memory_bytes"] >= usage["peak_memory_mb"] * 2**20


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: ServerProcess) -> None:
    command = ["curl", "-sN", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d"]
    done = subprocess.run([*command, json.dumps(SHORT)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"].startswith("12*8=96")
    done = subprocess.run(
        [*command, json.dumps({**SHORT, "stream": True})], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("data: {")
    assert done.stdout.endswith("data: [DONE]\n\n")


# --- what is refused -------------------------------------------------------------------------


def user(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"colour": "blue"}, "colour", "is no field of this server"),
        ({"top_p": 0.5}, "top_p", "can only be 1 here"),
        ({"tools": [{"type": "function"}]}, "tools", "can only be [] here"),
        ({"response_format": {"type": "json_object"}}, "response_format", "can only be"),
        ({"model": 5}, "model", "should be a valid string"),
        ({"messages": []}, "messages", "should have at least 1 item"),
        ({"messages": "hello"}, "messages", "should be a valid list"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no message has the role 'user'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "should be 'system'"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages.0.contents", "is no field"),
        ({"messages": ["hello"]}, "messages.0", "should be"),
        (user(""), "messages.0.content", "the question is empty"),
        (user(None), "messages.0.content", "the question is empty"),
        (user(5), "messages.0.content", "should be a text or a list of parts"),
        (user("\x00\x01"), "messages.0.content", "binary data"),
        (user("a" * 30_000), "messages.0.content", "30,000 characters"),
        (user("word " * 2000), "messages", "the policy's context is"),
        (user([{"type": "image_url", "image_url": {"url": "data:,"}}]), "messages.0.content", "only text can be read"),
        (user([{"type": "text"}]), "messages.0.content", "only text"),
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
        ({"stop": ""}, "stop", "not empty"),
        ({"stream": "yes"}, "stream", "should be a valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "goes with stream"),
        ({"stream": True, "stream_options": {"usage": 1}}, "stream_options.usage", "is no field"),
        ({"edge": {"strategy": "guess"}}, "edge.strategy", "unknown strategy 'guess'"),
        ({"edge": {"strategy": "beam:q=2"}}, "edge.strategy", "cannot have 'q=2'"),
        ({"edge": {"generations": 0}}, "edge.generations", "greater than or equal to 1"),
        ({"edge": {"deadline_s": 0}}, "edge.deadline_s", "greater than 0"),
        ({"edge": {"deadline_s": DEADLINE_S + 1}}, "edge.deadline_s", f"at most {DEADLINE_S}"),
        ({"edge": {"flops": -1}}, "edge.flops", "greater than 0"),
        ({"edge": {"speed": 1}}, "edge.speed", "is no field"),
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
def test_bodies_that_are_no_request(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == 400
    assert len(error(response)["message"]) < 400
    assert http.get("/health").status_code == 200


def test_a_body_of_another_type(http: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}):
        response = http.post("/v1/chat/completions", content=json.dumps(SHORT).encode(), headers=headers)
        assert response.status_code == 400
        assert "application/json" in error(response)["message"]


def test_unknown_things(http: httpx.Client) -> None:
    cases = [
        (ask(http, {**SHORT, "model": "gpt-5"}), 404, "model_not_found"),
        (http.get("/v1/models/gpt-5"), 404, "model_not_found"),
        (http.get("/v1/completions"), 404, None),
        (http.get("/v1/chat/completions"), 405, None),
        (http.put("/v1/models", json={}), 405, None),
        (http.get("/docs"), 404, None),
        (http.get("/openapi.json"), 404, None),
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
def test_a_body_too_long(http: httpx.Client, size: int, chunked: bool) -> None:
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


# --- clients that leave, and a server that is busy -------------------------------------------


@pytest.mark.parametrize("body", [LONG, {**LONG, "n": 4}])
def test_a_client_that_leaves_frees_its_slot(http: httpx.Client, server: ServerProcess, body: dict[str, Any]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.5)
    assert server.wait_until_idle(1)
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        found = chunks(response)  # the response is closed with it
        next(found)
        assert server.metric("requests_in_flight") == 1
    assert server.wait_until_idle(1)


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
