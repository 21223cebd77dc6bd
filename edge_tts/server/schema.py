"""The bodies of requests: fields and their ranges follow OpenAI's API, ``edge`` is this server's extension.

Fields that are not named here are kept, for :mod:`edge_tts.server.understanding` to accept or refuse by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from edge_tts.reasoning.question_kind import AnswerKind
from edge_tts.search.call import AUTO, Format
from edge_tts.search.strategy import MAX_N

MAX_CHOICES = 8
"""Most searches of one request: the limit of ``n``."""
MAX_MESSAGES = 1000
MAX_STOPS = 4
"""OpenAI's limit."""

Positive = Annotated[float, Field(gt=0)]
Choices = Annotated[int | None, Field(ge=1, le=MAX_CHOICES)]
Tokens = Annotated[int | None, Field(ge=1)]

_PART = {
    "type": "object",
    "properties": {"type": {"enum": ["text", "input_text", "output_text"]}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]}
_TEXT = {"type": "string", "minLength": 1}
_STOP = {"anyOf": [_TEXT, {"type": "array", "maxItems": MAX_STOPS, "items": _TEXT}, {"type": "null"}]}


def _text_or_parts(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return value
    raise ValueError("should be a string or a list of parts")


Content = Annotated[Any, AfterValidator(_text_or_parts), WithJsonSchema(_CONTENT)]
"""What a message says."""


class Strict(BaseModel):
    """An object that has no other fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Edge(Strict):
    """This server's extension: how to search and what the search may cost."""

    strategy: str = AUTO
    format: Format = "auto"
    kind: AnswerKind | None = None
    explain: bool = False
    generations: int | None = Field(default=None, ge=1, le=MAX_N)
    tokens: Tokens = None
    flops: Positive | None = None
    joules: Positive | None = None
    deadline_s: Positive | None = None
    events: bool = False


class ChatMessage(Strict):
    """One message. Clients that send an earlier answer back include fields that are accepted here but not read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None
    name: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None
    """Ignored: this server pads nothing."""


class Common(BaseModel):
    """What requests of all kinds have in common."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: str
    max_tokens: Tokens = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """vLLM's and llama.cpp's; 0 and -1 keep the whole vocabulary."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[Any, WithJsonSchema(_STOP)] = None
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


class ChatRequest(Common):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    n: Choices = None
    max_completion_tokens: Tokens = None


class CompletionRequest(Common):
    """The body of ``POST /v1/completions``: a prompt, which is asked as a question."""

    prompt: Annotated[Any, WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "maxItems": 1, "items": _TEXT}]})]
    n: Choices = None

    @field_validator("prompt")
    @classmethod
    def _one_text(cls, value: Any) -> str:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str):
            return value
        raise ValueError("should be one string: this server takes one prompt at a time, as text")


class InputItem(BaseModel):
    """One item of a response's ``input``. Items that are no messages have other fields, too."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content = None


class ResponseRequest(Common):
    """The body of ``POST /v1/responses``."""

    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: Tokens = None
