"""Answers of the server as its clients see them: OpenAI's client, curl and plain HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import httpx
import pytest
from openai import OpenAI
from server_requests import ASKED, DEADLINE_S, QUESTION, SHORT, ask, chunks

from edge_tts.bench.server_process import ServerProcess
from edge_tts.core import Budget, Usage
from edge_tts.events import BestSoFar, Result, StepTaken
from edge_tts.packs.pack import Pack
from edge_tts.server.reply import EVENT_NAMES, Shape, content, reasoning
from edge_tts.server.schema import ChatMessage
from edge_tts.server.understanding import conversation
from edge_tts.solver import Solver


def test_an_answer_equals_the_librarys(client: OpenAI, pack: Pack) -> None:
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
    # The server may have evaluated the prompt for an earlier request.
    assert (
        result.usage.policy_tokens - result.prompt_tokens
        <= edge["usage"]["policy_tokens"]
        <= result.usage.policy_tokens
    )


def test_a_stream_equals_the_whole_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED, seed=1, extra_body={"edge": {"generations": 5}})
    extra = {"edge": {"generations": 5, "events": True}}
    content, events, ends, usage = "", [], [], None
    for chunk in client.chat.completions.create(
        **ASKED, seed=1, stream=True, stream_options={"include_usage": True}, extra_body=extra
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
    assert {"difficulty", "strategy", "step", "score", "best"} <= {event["type"] for event in events}
    for event in events:
        kind = next(kind for kind, name in EVENT_NAMES.items() if name == event["type"])
        words = {"words", "level"} if "confidence" in kind.__dataclass_fields__ else set()
        assert set(event) == {"type", "choice", *kind.__dataclass_fields__, *words}
    steps = [event["text"] for event in events if event["type"] == "step"]
    assert set(content.splitlines()) <= set(steps)


def test_openais_client_assembles_a_stream_with_events(client: OpenAI) -> None:
    edge = {"generations": 2, "events": True}
    with client.chat.completions.stream(**ASKED, seed=1, extra_body={"edge": edge}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    whole = client.chat.completions.create(**ASKED, seed=1, extra_body={"edge": {"generations": 2}})
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_every_choice_is_a_search_with_its_own_seed(http: httpx.Client) -> None:
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


def test_the_last_message_is_the_question(http: httpx.Client) -> None:
    plain = ask(http, SHORT).json()
    parts = [{"type": "text", "text": QUESTION[:40]}, {"type": "text", "text": QUESTION[40:]}]
    messages = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "What is 6 times 7?"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None},
        {"role": "assistant", "content": "42", "reasoning_content": "6*7=42"},
        {"role": "user", "content": parts, "name": "tom"},
    ]
    talked = ask(http, {**SHORT, "messages": messages}).json()
    assert talked["choices"] == plain["choices"]
    assert talked["usage"] == plain["usage"]


def test_a_program_sent_back_has_no_values() -> None:
    lines = 'x = 3  # not a value\ntext = "a  # b"  # 7\nanswer = x'
    answer = ChatMessage(role="assistant", content=f"```python\n{lines}  # 3\n```\n\nThe answer is 3.")
    sent = [ChatMessage(role="user", content="x = 3  # 3"), answer, ChatMessage(role="user", content="And 4?")]
    first, second, _ = conversation(sent)
    assert first.content == "x = 3  # 3"
    assert second.content.startswith("```python\nx = 3\ntext = ")
    assert second.content.endswith("\nanswer = x\n```\n\nThe answer is 3.")


def test_a_json_object(client: OpenAI) -> None:
    """Small models do not write JSON reliably, so there always is an object with the answer."""
    options: Any = {**ASKED, "response_format": {"type": "json_object"}, "seed": 0, "stop": "{"}
    made = client.chat.completions.create(**options, extra_body={"edge": {"generations": 4}})
    assert json.loads(made.choices[0].message.content or "") == {"answer": "76"}
    streamed = client.chat.completions.create(**options, stream=True, extra_body={"edge": {"generations": 4}})
    content = "".join(choice.delta.content or "" for chunk in streamed for choice in chunk.choices)
    assert content == made.choices[0].message.content
    cut = client.chat.completions.create(**options, max_tokens=2)
    assert json.loads(cut.choices[0].message.content or "") == {"answer": None}
    text: Any = {"format": {"type": "json_object"}}
    answered = client.responses.create(model="smol-math", input=QUESTION, text=text, extra_body={"seed": 0})
    assert json.loads(answered.output_text) == {"answer": "76"}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (["It is so.", r"\boxed{Paris}"], {"answer": "Paris"}),
        (["With {} and {x}:", 'Here: ```json\n{"city": {"a": 1}, "n": 2}\n```'], {"city": {"a": 1}, "n": 2}),
        ([r'\boxed{{"city": "Paris"}}'], {"city": "Paris"}),
        (['{"a":' * 5000], {"answer": "Paris"}),
    ],
)
def test_an_object_that_the_model_writes_is_the_content(steps: list[str], wanted: dict[str, Any]) -> None:
    found = Result("Paris", tuple(steps), True, "auto", "", None, "complete", 1.0, Usage(), 0, 9, format="text")
    assert json.loads(content(found, Shape("\n\n", as_json=True))) == wanted
    assert json.loads(content(replace(found, format="program"), Shape("\n", as_json=True))) == {"answer": "Paris"}


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
def test_an_unfinished_answer_says_why(http: httpx.Client, fields: dict[str, Any], stopped: str) -> None:
    answer = ask(http, {**SHORT, **fields}).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == ""
    assert choice["finish_reason"] == "length"
    assert answer["edge"]["finished"] is False
    assert answer["edge"]["answer"] is None
    assert answer["edge"]["stop_reason"] == stopped


def test_a_stream_tells_the_steps_as_reasoning(http: httpx.Client) -> None:
    body = {**ASKED, "seed": 1, "stream": True, "edge": {"strategy": "majority:n=2"}}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        deltas = [choice["delta"] for chunk in chunks(response) for choice in chunk["choices"]]
    order = [next(iter(delta)) for delta in deltas if delta and "role" not in delta]
    assert order == sorted(order, reverse=True)  # all reasoning_content, then all content
    lines = "".join(delta.get("reasoning_content", "") for delta in deltas).splitlines()
    content = "".join(delta.get("content", "") for delta in deltas).splitlines()
    assert lines[0] == "strategy majority:n=2: asked for"
    for candidate in ("[1] ", "[2] "):
        assert [line for line in lines if line.startswith(candidate)]
    assert any([line[4:] for line in lines if line.startswith(c)] == content for c in ("[1] ", "[2] "))
    assert any(line.startswith("best so far: 76 (") and line.endswith(")") for line in lines)


def test_the_reasoning_is_for_people() -> None:
    assert reasoning(StepTaken(0, "```", True, ("answer = 3",), answer="3")) == "[1] (end of the program)\n"
    assert reasoning(StepTaken(1, "a = b", True, error="no b")) == "[2] a = b\n[2] failed: no b\n"
    assert reasoning(BestSoFar("3", 1.0, 0.72)) == "best so far: 3 (likely, about 72%)\n"


def test_a_request_without_a_seed_gets_a_new_one(http: httpx.Client) -> None:
    seeds = {ask(http, body).json()["edge"]["seed"] for body in (SHORT, {**SHORT, "seed": None}, SHORT)}
    assert len(seeds) == 3
    assert {ask(http, {**SHORT, "seed": 5}).json()["edge"]["seed"] for _ in range(2)} == {5}


@pytest.mark.parametrize("narrow", [{"top_p": 0}, {"top_p": 0.001}, {"top_k": 1}, {"min_p": 0.999}])
def test_sampling_fields_are_used(http: httpx.Client, narrow: dict[str, Any]) -> None:
    """Each of these leaves only the most likely token, so that all samples are equal."""
    edge = {"strategy": "majority:n=4"}
    drawn = ask(http, {**ASKED, "temperature": 2, **narrow, "edge": edge}).json()
    assert drawn["choices"][0]["message"] == ask(http, SHORT).json()["choices"][0]["message"]
    assert drawn["edge"]["support"] == 1.0


def test_sampling_fields_that_keep_everything(http: httpx.Client) -> None:
    asked = {**ASKED, "seed": 3, "temperature": 0.001, "top_p": 1, "min_p": 0, "top_k": -1}
    answer = ask(http, {**asked, "edge": {"strategy": "majority:n=2"}})
    assert answer.json()["choices"][0]["message"] == ask(http, SHORT).json()["choices"][0]["message"]


def test_temperature_zero_draws_one_answer(http: httpx.Client) -> None:
    edge = {"strategy": "majority:n=4"}
    cold = ask(http, {**ASKED, "temperature": 0, "edge": edge}).json()
    assert cold["edge"]["support"] == 1.0
    assert cold["choices"][0]["message"] == ask(http, SHORT).json()["choices"][0]["message"]


def test_fields_without_effect_are_accepted(http: httpx.Client) -> None:
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "repeat_penalty": 1.0,
        "logprobs": False,
        "tools": None,
        "tool_choice": "auto",
        "prediction": None,
        "extra_body": {},
        "logit_bias": {},
        "top_logprobs": None,
        "moderation": None,
        "stop": [],
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
