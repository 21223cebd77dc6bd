"""The body of a chat completion request, and what it asks of the solver.

Fields and their ranges follow OpenAI's API; ``edge`` is this server's extension. Any other field is refused by name,
except the ones in ``IGNORED``, and the ones in ``NEUTRAL`` at a value that has no effect.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge_tts.core import LEAST_TEMPERATURE, Budget, Sampling
from edge_tts.errors import InputError
from edge_tts.questions.reading import checked_question
from edge_tts.reasoning.messages import Message, Role
from edge_tts.search.strategy import MAX_N, Strategy
from edge_tts.server.api_error import ApiError
from edge_tts.solver import AUTO, Solver

MAX_CHOICES = 8
"""Most searches of one request: the limit of ``n``."""
MAX_MESSAGES = 1000
MAX_STOPS = 4
"""OpenAI's limit."""
LEAST_TOP_P = 1e-6
"""Stands for a ``top_p`` of 0, which OpenAI's API allows: only the most likely token is left."""
NEW_SEEDS = 2**31
"""A request without a seed gets one below this."""
IGNORED = (
    *("user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"),
    *("verbosity", "reasoning_effort", "parallel_tool_calls"),
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
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "extra_body": ({},),  # its-hub sends it
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
"""Accepted only as null or at one of these values, which have no effect."""
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of messages that the solver can take."""

Positive = Annotated[float, Field(gt=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Edge(_Model):
    """This server's extension: how to search and what the search may cost."""

    strategy: str = AUTO
    generations: int | None = Field(default=None, ge=1, le=MAX_N)
    tokens: int | None = Field(default=None, ge=1)
    flops: Positive | None = None
    joules: Positive | None = None
    deadline_s: Positive | None = None
    events: bool = False


class ChatMessage(_Model):
    """One message. Clients that send an earlier answer back include fields that are accepted here but not read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None
    name: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None

    @field_validator("content")
    @classmethod
    def _text_or_parts(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(part, dict) for part in value):
            return value
        raise ValueError("should be a string or a list of parts")


class StreamOptions(_Model):
    include_usage: bool = False
    include_obfuscation: bool | None = None
    """Ignored: this server pads nothing."""


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """vLLM's and llama.cpp's; 0 and -1 keep the whole vocabulary."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Any = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    edge: Edge | None = None

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: Any) -> list[str]:
        stops = [] if value is None else [value] if isinstance(value, str) else value
        if isinstance(stops, list) and len(stops) <= MAX_STOPS and all(isinstance(s, str) and s for s in stops):
            return stops
        raise ValueError(f"should be a non-empty string or a list of at most {MAX_STOPS} of them")


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
    sampling: Sampling
    seeds: tuple[int, ...]
    """One for each choice."""
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    events: bool
    """Whether a stream carries the search's events instead of ``reasoning_content``."""

    @property
    def question(self) -> str:
        """The text of the last message."""
        return self.messages[-1].content


def understand(body: ChatRequest, solver: Solver) -> Asked:
    """Translate ``body`` for ``solver``. Raises ApiError that names the field which cannot be honoured."""
    if body.model != solver.pack.name:
        raise ApiError.unknown_model(body.model, solver.pack.name)
    for name, value in (body.model_extra or {}).items():
        if name in IGNORED or (name in NEUTRAL and (value is None or value in NEUTRAL[name])):
            continue
        known = name in NEUTRAL
        problem = f"{name} must be {json.dumps(NEUTRAL[name][0])} here" if known else f"this server has no field {name}"
        raise ApiError(400, f"{problem}; leave it out", name, "unsupported_value" if known else "unknown_field")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options needs stream: true; leave it out", "stream_options")
    edge = body.edge or Edge()
    messages = _conversation(body.messages)
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
        _sampling(body, solver.pack.sampling),
        tuple(seed + i for i in range(body.n or 1)),
        tuple(body.stop or ()),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
        edge.events,
    )


def _conversation(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """The messages that say something, as the solver takes them. The last must be a user's."""
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
        try:
            if i == len(messages) - 1:
                text = checked_question(text)
            if text.strip():
                found.append(Message(role, text))
        except InputError as error:
            raise ApiError(400, str(error), f"{where}.content") from error
    return tuple(found)


def _text(content: Any, where: str) -> str:
    """The text of a message's content, which is a string, None or a list of parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    for i, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            message = f"{where}.{i} has type {part.get('type')!r}; this server reads only parts of type 'text'"
            raise ApiError(400, message, where, "unsupported_content")
    return "".join(part["text"] for part in parts)


def _check_edge(edge: Edge, solver: Solver) -> None:
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
    if strategy.needs_verifier and not solver.plan.verifier:
        raise ApiError(
            400, f"{strategy} needs a verifier, but none is loaded; use majority or adaptive", "edge.strategy"
        )


def _sampling(body: ChatRequest, usual: Sampling) -> Sampling:
    """The pack's sampling with the request's values. A request can shorten the samples but not lengthen them."""
    tokens = [n for n in (body.max_tokens, body.max_completion_tokens, usual.max_tokens) if n is not None]
    temperature = usual.temperature if body.temperature is None else body.temperature
    return replace(
        usual,
        temperature=0 if temperature < LEAST_TEMPERATURE else temperature,
        max_tokens=min(tokens),
        top_p=usual.top_p if body.top_p is None else max(body.top_p, LEAST_TOP_P),
        top_k=usual.top_k if body.top_k is None else max(body.top_k, 0),
        min_p=usual.min_p if body.min_p is None else body.min_p,
    )
