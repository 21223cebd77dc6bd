"""What a request asks of the solver. A field that cannot be honoured is refused by name.

Fields in ``IGNORED`` are accepted with any value, and those in ``NEUTRAL`` at a value that has no effect.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_tts.core import LEAST_TEMPERATURE, Budget, Sampling
from edge_tts.errors import InputError
from edge_tts.questions.reading import checked_question
from edge_tts.reasoning.messages import Message, Role
from edge_tts.search.call import AUTO, Options
from edge_tts.search.strategy import Strategy
from edge_tts.server.api_error import ApiError
from edge_tts.server.reply import PROGRAM_OPENING, Shape
from edge_tts.server.schema import (
    ChatMessage,
    ChatRequest,
    Common,
    CompletionRequest,
    Edge,
    InputItem,
    ResponseRequest,
)
from edge_tts.solver import Solver

LEAST_TOP_P = 1e-6
"""Stands for a ``top_p`` of 0, which OpenAI's API allows: only the most likely token is left."""
NEW_SEEDS = 2**31
"""A request without a seed gets one below this."""
JSON_OBJECT = {"type": "json_object"}
"""The response format that makes the content a JSON object."""
IGNORED = (
    *("user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key"),
    *("prompt_cache_retention", "prompt_cache_options", "verbosity", "reasoning_effort", "parallel_tool_calls"),
)
"""Accepted with any value; they have no effect on this server."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),  # vLLM's
    "repeat_penalty": (1,),  # llama.cpp's
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"}, JSON_OBJECT),
    "modalities": (["text"],),
    "extra_body": ({},),  # its-hub sends it
    "audio": (None,),
    "moderation": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
"""Accepted only as null or at one of these values, which have no effect, save ``JSON_OBJECT``."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts that are text: the chat API's and the Responses API's."""
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of messages that the solver can take."""
COMPLETION_NEUTRAL = {"echo": (False,), "suffix": ("",), "best_of": (1,)}
"""Further ones of ``/v1/completions``."""
RESPONSE_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "text": ({"format": {"type": "text"}}, {}, {"format": JSON_OBJECT}),
    "previous_response_id": (None,),  # nothing is stored
    "conversation": (None,),
    "background": (False,),
    "prompt": (None,),
    "context_management": (None,),
}
"""Further ones of ``/v1/responses``."""
RESPONSE_IGNORED = ("include", "reasoning", "truncation", "max_tool_calls")

_VALUE = re.compile(r"(?<=\S)  # .*$", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """A valid request, as the solver needs it."""

    messages: tuple[Message, ...]
    """The conversation; the last message is a user's."""
    strategy: str
    budget: Budget
    """``seconds`` is left open: it is what remains after the wait for a slot."""
    seconds: float
    """Longest time from the arrival of the request to its answer, including its wait."""
    options: Options
    """Sampling, format, kind of answer, and whether it is explained."""
    seeds: tuple[int, ...]
    """One for each choice."""
    shape: Shape
    stream: bool
    include_usage: bool
    events: bool
    """Whether a stream carries the search's events instead of ``reasoning_content``."""
    source: str = "messages"
    """The field that holds the question."""


def understand_chat(body: ChatRequest, solver: Solver) -> Asked:
    """Translate ``body`` for ``solver``. Raises ApiError that names the field which cannot be honoured."""
    limits = (body.max_tokens, body.max_completion_tokens)
    return _understand(body, conversation(body.messages), solver, body.n, limits)


def understand_completion(body: CompletionRequest, solver: Solver) -> Asked:
    """The same for a prompt, which is asked as a question."""
    messages = (Message("user", _question(body.prompt, "prompt")),)
    neutral = {**NEUTRAL, **COMPLETION_NEUTRAL}
    asked = _understand(body, messages, solver, body.n, (body.max_tokens,), neutral)
    return replace(asked, source="prompt")


def understand_response(body: ResponseRequest, solver: Solver) -> Asked:
    """The same for the Responses API, without its state: a conversation is sent whole, in ``input``."""
    instructions = [ChatMessage(role="system", content=body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        messages = [ChatMessage(role="user", content=_question(body.input, "input"))]
    else:
        messages = [_message(item, f"input.{i}") for i, item in enumerate(body.input) if item.type != "reasoning"]
    if not messages:
        raise ApiError(400, "input holds no message; give at least one with the role 'user'", "input")
    try:
        said = conversation([*instructions, *messages])
    except ApiError as refusal:
        refusal.param = "input"
        raise
    limits = (body.max_tokens, body.max_output_tokens)
    known = {**NEUTRAL, **RESPONSE_NEUTRAL}
    asked = _understand(body, said, solver, 1, limits, known, (*IGNORED, *RESPONSE_IGNORED))
    return replace(asked, source="input")


def _message(item: InputItem, where: str) -> ChatMessage:
    if item.type != "message" or item.role is None:
        problem = f"{where} has type {item.type!r} and role {item.role!r}; this server reads only messages with a role"
        raise ApiError(400, problem, where, "unsupported_content")
    return ChatMessage(role=item.role, content=item.content)


def _understand(
    body: Common,
    messages: tuple[Message, ...],
    solver: Solver,
    choices: int | None,
    limits: Sequence[int | None],
    neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
    ignored: Sequence[str] = IGNORED,
) -> Asked:
    if body.model != solver.pack.name:
        raise ApiError.unknown_model(body.model, solver.pack.name)
    _check_others(body.model_extra or {}, neutral, ignored)
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options needs stream: true; leave it out", "stream_options")
    edge = body.edge or Edge()
    _check_edge(edge, solver)
    longest = solver.deadline_s or solver.plan.deadline_s
    if edge.deadline_s is not None and edge.deadline_s > longest:
        raise ApiError(400, f"edge.deadline_s must be at most {longest:g}; got {edge.deadline_s:g}", "edge.deadline_s")
    seed = secrets.randbelow(NEW_SEEDS) if body.seed is None else body.seed
    return Asked(
        messages,
        edge.strategy,
        Budget(edge.generations, edge.tokens, edge.flops, None, edge.joules),
        edge.deadline_s or longest,
        _options(body, limits, edge, solver.pack.sampling),
        tuple(seed + i for i in range(choices or 1)),
        Shape(_delimiter(solver), tuple(body.stop or ()), _wants_json(body.model_extra or {})),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
        edge.events,
    )


def _check_others(fields: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]], ignored: Sequence[str]) -> None:
    """Raises ApiError for the first of ``fields`` that would have to have an effect."""
    for name, value in fields.items():
        if name in ignored or (name in neutral and (value is None or value in neutral[name])):
            continue
        known = name in neutral
        problem = f"{name} must be {json.dumps(neutral[name][0])} here" if known else f"this server has no field {name}"
        raise ApiError(400, f"{problem}; leave it out", name, "unsupported_value" if known else "unknown_field")


def _delimiter(solver: Solver) -> str:
    return "\n\n" if solver.pack.format == "text" else solver.pack.prompts.step_delimiter


def _wants_json(fields: Mapping[str, Any]) -> bool:
    """Whether ``response_format`` of completions, or ``text`` of the Responses API, asks for a JSON object."""
    text = fields.get("text")
    return JSON_OBJECT in (fields.get("response_format"), text.get("format") if isinstance(text, dict) else None)


def conversation(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The messages that say something, as the solver takes them. The last must be a user's.

    Programs of earlier answers come without the values behind their lines: a model would write such values itself.
    Raises ApiError.
    """
    if messages[-1].role != "user":
        problem = f"the last message must have the role 'user' and hold the question; got {messages[-1].role!r}"
        raise ApiError(400, problem, "messages")
    found = []
    for i, message in enumerate(messages):
        where = f"messages.{i}"
        role = ROLES.get(message.role)
        if role is None:
            raise ApiError(400, f"{where} has the role {message.role!r}; this server runs no tools", f"{where}.role")
        text = _text(message.content, f"{where}.content")
        if role == "assistant" and text.startswith(PROGRAM_OPENING):
            text = _VALUE.sub("", text)
        try:
            text = _question(text, f"{where}.content") if i == len(messages) - 1 else text
            if text.strip():
                found.append(Message(role, text))
        except InputError as error:
            raise ApiError(400, str(error), f"{where}.content") from error
    return tuple(found)


def _question(text: str, where: str) -> str:
    """``text`` as a question. Raises ApiError where it is none."""
    if not text.strip():
        raise ApiError(400, "the question is empty; write one, for example: What is 3 times 14?", where)
    try:
        text = checked_question(text)
        text.encode()
    except InputError as error:
        raise ApiError(400, str(error), where) from error
    except UnicodeEncodeError as error:
        problem = f"the question holds half a surrogate pair at character {error.start}; send valid text"
        raise ApiError(400, problem, where) from error
    return text


def _text(content: Any, where: str) -> str:
    """The text of a message's content, which is a string, None or a list of parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    for i, part in enumerate(parts):
        if part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
            message = f"{where}.{i} has type {part.get('type')!r}; this server reads only parts of type 'text'"
            raise ApiError(400, message, where, "unsupported_content")
    return "".join(part["text"] for part in parts)


def _check_edge(edge: Edge, solver: Solver) -> None:
    if solver.pack.format == "equations":
        wanted = {"format": edge.format != "auto", "kind": edge.kind is not None, "explain": edge.explain}
        if name := next((name for name, given in wanted.items() if given), None):
            raise ApiError(400, f"{solver.pack.name} writes equations only; leave edge.{name} out", f"edge.{name}")
    if edge.joules is not None and not solver.profile.watts:
        raise ApiError(
            400,
            f"joules cannot be counted: the profile {solver.profile.name} states no watts; leave it out",
            "edge.joules",
        )
    if edge.strategy == AUTO:
        return
    try:
        strategy = Strategy.parse(edge.strategy, edge.generations or solver.plan.generations)
    except InputError as error:
        raise ApiError(400, str(error), "edge.strategy") from error
    if strategy.needs_verifier and not solver.plan.verifier and not solver.pack.program_verifier:
        raise ApiError(
            400, f"{strategy} needs a verifier, but none is loaded; use majority or adaptive", "edge.strategy"
        )


def _options(body: Common, limits: Sequence[int | None], edge: Edge, usual: Sampling) -> Options:
    """What a request sets besides question, strategy, budget and seed. It can shorten candidates, not lengthen them:
    the plan's memory is for the usual length."""
    options = Options(format=edge.format, kind=edge.kind, explain=edge.explain)
    if given := [limit for limit in limits if limit is not None]:
        options["max_tokens"] = min(*given, usual.max_tokens)
    if any(value is not None for value in (body.temperature, body.top_p, body.top_k, body.min_p)):
        options["sampling"] = _sampling(body, usual)
    return options


def _sampling(body: Common, usual: Sampling) -> Sampling:
    """The pack's sampling with the request's values."""
    temperature = usual.temperature if body.temperature is None else body.temperature
    return replace(
        usual,
        temperature=0 if temperature < LEAST_TEMPERATURE else temperature,
        top_p=usual.top_p if body.top_p is None else max(body.top_p, LEAST_TOP_P),
        top_k=usual.top_k if body.top_k is None else max(body.top_k, 0),
        min_p=usual.min_p if body.min_p is None else body.min_p,
    )
