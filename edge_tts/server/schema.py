"""The body of a chat completion request, and what it asks of the solver.

Fields and their ranges follow OpenAI's API; ``edge`` is this server's extension. Any other field is refused by name,
except the ones in ``IGNORED``, and the ones in ``NEUTRAL`` at a value that has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge_tts.core import Budget, Sampling
from edge_tts.errors import InputError
from edge_tts.questions.reading import checked_question
from edge_tts.search.strategy import MAX_N, Strategy
from edge_tts.server.api_error import ApiError
from edge_tts.solver import AUTO, Solver

MAX_CHOICES = 8
"""Most searches of one request: the limit of ``n``."""
MAX_MESSAGES = 1000
MAX_STOPS = 4
"""OpenAI's limit."""
IGNORED = (
    *("user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"),
    *("verbosity", "reasoning_effort", "parallel_tool_calls"),
)
"""Accepted with any value; they have no effect on this server."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Accepted only as null or at one of these values, which have no effect."""

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


class Message(_Model):
    """One message. Clients that send an earlier answer back include fields that are accepted here but not read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None
    name: Any = None
    refusal: Any = None
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
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
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

    question: str
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


def understand(body: ChatRequest, solver: Solver) -> Asked:
    """Translate ``body`` for ``solver``. Raises ApiError that names the field which cannot be honoured."""
    if body.model != solver.pack.name:
        raise ApiError.unknown_model(body.model, solver.pack.name)
    for name, value in (body.model_extra or {}).items():
        if name in IGNORED or (name in NEUTRAL and (value is None or value in NEUTRAL[name])):
            continue
        known = name in NEUTRAL
        problem = f"{name} must be {NEUTRAL[name][0]!r} here" if known else f"this server has no field {name}"
        raise ApiError(400, f"{problem}; leave it out", name, "unsupported_value" if known else "unknown_field")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options needs stream: true; leave it out", "stream_options")
    edge = body.edge or Edge()
    question = _question(body.messages)
    _check_edge(edge, solver)
    longest = solver.deadline_s or solver.plan.deadline_s
    if edge.deadline_s is not None and edge.deadline_s > longest:
        raise ApiError(400, f"edge.deadline_s must be at most {longest:g}; got {edge.deadline_s:g}", "edge.deadline_s")
    return Asked(
        question,
        edge.strategy,
        Budget(edge.generations, edge.tokens, edge.flops, None, edge.joules),
        edge.deadline_s or longest,
        _sampling(body, solver.pack.sampling),
        tuple((body.seed or 0) + i for i in range(body.n or 1)),
        tuple(body.stop or ()),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
        edge.events,
    )


def _question(messages: list[Message]) -> str:
    """The text of the last user message."""
    last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), None)
    if last is None:
        raise ApiError(400, "no message has the role 'user'; add one with the question", "messages")
    where, content = f"messages.{last}.content", messages[last].content
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    for i, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type")
            raise ApiError(
                400,
                f"{where}.{i} has type {kind!r}; this server reads only parts of type 'text'",
                where,
                "unsupported_content",
            )
    try:
        text = checked_question("".join(part["text"] for part in parts))
        text.encode()
    except InputError as error:
        raise ApiError(400, str(error), where) from error
    except UnicodeEncodeError as error:
        raise ApiError(
            400, f"{where} has an unpaired surrogate at character {error.start}; send valid Unicode", where
        ) from error
    return text


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
    return replace(usual, temperature=temperature, max_tokens=min(tokens))
