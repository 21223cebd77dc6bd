"""Completions and responses, as OpenAI's client sees them, and the server's description of itself."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from server_requests import ASKED, QUESTION, SHORT, ask, error

GREEDY = {"edge": {"strategy": "greedy"}}


@pytest.fixture
def chatted(http: httpx.Client) -> str:
    """The content of a chat completion with the greedy answer."""
    return str(ask(http, SHORT).json()["choices"][0]["message"]["content"])


# --- completions -----------------------------------------------------------------------------------------


def test_a_completion_answers_its_prompt(client: OpenAI, chatted: str) -> None:
    made = client.completions.create(model="smol-math", prompt=QUESTION, extra_body=GREEDY, max_tokens=64)
    assert made.object == "text_completion"
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason) == (chatted, "stop")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.model_extra is not None
    assert made.model_extra["edge"]["answer"] == "76"


def test_a_completion_as_a_stream(client: OpenAI, chatted: str) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}, "n": 2, "extra_body": GREEDY}
    chunks = list(client.completions.create(model="smol-math", prompt=[QUESTION], stream=True, **options))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        assert chunk.object == "text_completion"
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: chatted, 1: chatted}
    assert chunks[-1].usage is not None
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop", "stop"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "word " * 2000}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 1}, "logprobs"),
    ],
)
def test_a_completion_names_what_it_refuses(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = http.post("/v1/completions", json={"model": "smol-math", "prompt": QUESTION, **GREEDY, **fields})
    assert response.status_code == 400
    assert error(response)["param"] == param


def test_neutral_fields_of_a_completion(http: httpx.Client) -> None:
    neutral = {"echo": False, "suffix": None, "best_of": 1, "logprobs": None, "user": "me", "presence_penalty": 0}
    response = http.post("/v1/completions", json={"model": "smol-math", "prompt": QUESTION, **GREEDY, **neutral})
    assert response.status_code == 200


# --- responses -------------------------------------------------------------------------------------------


def test_a_response_answers_its_input(client: OpenAI, chatted: str) -> None:
    made = client.responses.create(model="smol-math", input=QUESTION, extra_body=GREEDY)
    assert made.output_text == chatted
    assert made.status == "completed"
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert made.model_extra is not None
    assert made.model_extra["edge"]["answer"] == "76"


def test_a_conversation_of_responses(client: OpenAI, chatted: str) -> None:
    """What a response gave can be sent back as it is."""
    first = client.responses.create(model="smol-math", input="What is 6 times 7?", extra_body=GREEDY)
    sent = [
        {"role": "user", "content": "What is 6 times 7?"},
        *[item.model_dump() for item in first.output],
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    made = client.responses.create(
        model="smol-math",
        instructions="Be brief.",
        input=sent,  # type: ignore[arg-type]
        temperature=0,
        store=False,
        reasoning={"effort": "low"},
        text={"format": {"type": "text"}},
        tools=[],
        extra_body=GREEDY,
    )
    assert made.output_text == chatted


def test_a_response_as_a_stream(client: OpenAI, chatted: str) -> None:
    kinds, numbers, text, reasoned = [], [], "", ""
    for event in client.responses.create(model="smol-math", input=QUESTION, stream=True, extra_body=GREEDY):
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.reasoning_summary_text.delta":
            assert not text  # the reasoning comes first
            reasoned += event.delta
        elif event.type == "response.completed":
            assert event.response.output_text == text
            assert event.response.output[0].summary[0].text == reasoned  # type: ignore[union-attr]
    assert text == chatted
    assert "[1] 12*8=96" in reasoned
    assert numbers == list(range(len(numbers)))
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_openais_client_assembles_a_streamed_response(client: OpenAI, chatted: str) -> None:
    with client.responses.stream(model="smol-math", input=QUESTION, extra_body=GREEDY) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert final.output_text == chatted


def test_a_response_that_is_cut_is_incomplete(client: OpenAI) -> None:
    made = client.responses.create(model="smol-math", input=QUESTION, max_output_tokens=2, extra_body=GREEDY)
    assert (made.status, made.output_text) == ("incomplete", "")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "42"}]}, "input"),
        ({"input": [{"type": "function_call_output", "output": "1", "call_id": "x"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": "word " * 2000}, "input"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_a_response_names_what_it_refuses(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = http.post("/v1/responses", json={"model": "smol-math", "input": QUESTION, **GREEDY, **fields})
    assert response.status_code == 400
    assert error(response)["param"] == param


def test_a_response_fails_as_the_client_expects(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.responses.create(model="smol-math", input="x", extra_body={"edge": {"strategy": "guess"}})
    assert bad.value.param == "edge.strategy"


# --- the description -------------------------------------------------------------------------------------


def test_the_description_names_routes_and_model(http: httpx.Client) -> None:
    found = http.get("/openapi.json").json()
    posts = {path for path, methods in found["paths"].items() if "post" in methods}
    assert posts == {"/v1/chat/completions", "/v1/completions", "/v1/responses"}
    schemas = found["components"]["schemas"]
    for name in ("ChatRequest", "CompletionRequest", "ResponseRequest"):
        assert schemas[name]["properties"]["model"]["enum"] == [ASKED["model"]]
    assert "422" not in str(found["paths"])
