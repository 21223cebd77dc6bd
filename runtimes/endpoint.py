"""Any OpenAI-compatible chat endpoint, answering whole problems: vLLM, SGLang, llama-server, Ollama, a hosted API.

The ``openai`` client repeats by itself what finds nobody, waits in vain for the first byte, or is answered with 408,
409, 429 or 5xx: backoff with jitter, Retry-After up to two minutes. What it leaves alone is repeated here: a
stream that stalls, breaks off or carries an error, and a rate limit whose headers say when it ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from edge_tts.errors import BackendError, InputError

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")

LONGEST_WAIT_S = 600.0
"""A rate limit that ends later than this is an error."""
CLIENT_WAITS_S = 120.0
"""The longest Retry-After that the ``openai`` client respects by itself (``MAX_RETRY_AFTER_DELAY``)."""
BODY_CHARS = 200
"""How much of a server's answer goes into a message."""
CONNECT_S = 5.0
"""Longest wait for a connection, as by the client's default."""
_NO_CHOICES_FOR_N = (400, 422, 500, 501)
"""How servers that take only n = 1 refuse more."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd]?)")
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class EndpointSettings:
    """Where the endpoint is, how it is asked, and what its answers cost.

    Raises InputError for a value that cannot be used.
    """

    url: str
    """"http://host:port", or with a path: "https://host/v1"."""
    model: str
    key_variable: str | None = None
    """Environment variable that holds the API key; None sends no key."""
    concurrency: int = 8
    """Requests under way at once, at least 1."""
    timeout_s: float = 120.0
    """Longest wait for the next token, the time in the server's queue included; above 0."""
    retries: int = 4
    max_tokens: int = 2048
    """Most new tokens of one completion."""
    temperature: float = 0.7
    stream: bool = True
    """False for servers that report usage only for whole answers (llama-cpp-python's); ``timeout_s`` is then the
    longest wait for all of it."""
    price_in: float | None = None
    """Currency units per million prompt tokens."""
    price_out: float | None = None
    """Currency units per million new tokens."""
    parameters: int | None = None
    """Weights that take part in a forward pass, for FLOPs = 2 x parameters x tokens."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise InputError(f"the endpoint's address {self.url!r} is none; give for example http://127.0.0.1:8000")
        for name, least in (("concurrency", 1), ("retries", 0), ("max_tokens", 1), ("temperature", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} of an endpoint must be at least {least}, not {getattr(self, name)}")
        if self.timeout_s <= 0:
            raise InputError(f"timeout_s of an endpoint must be above 0 seconds, not {self.timeout_s:g}")

    @property
    def base_url(self) -> str:
        """The address as the client takes it: with "/v1" where it has no path."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/v1"))

    @property
    def shown_url(self) -> str:
        """``base_url`` without credentials, for messages and records."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@dataclass(frozen=True)
class Completion:
    """One sample."""

    text: str
    finish_reason: str
    """"stop" where the model came to its end, "length" at ``max_tokens``."""


@dataclass(frozen=True)
class Reply:
    """What one request gave."""

    completions: tuple[Completion, ...]
    """At least one."""
    prompt_tokens: int | None
    """None where the server does not report usage."""
    completion_tokens: int | None
    """Of all its completions together, as servers report it; None where they do not."""
    started: float
    """``time.monotonic()`` when the request was first sent."""
    ended: float
    """The same when its last token was there; repeated attempts and their waits lie between."""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class Endpoint:
    """A client of one endpoint; use it in ``async with``, again and again if wanted.

    Raises InputError where the ``openai`` package or the API key is missing.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"asking an endpoint needs {error.name}, which is not installed: "
                "pip install 'edge-reasoning-runtime[bench]'"
            ) from error
        self.settings = settings
        self._key = _key(settings.key_variable)
        self._one_at_a_time = False
        """The server gave fewer than ``n`` completions, or refused to."""
        self._broken: list[_Reading] = []
        """Answers that broke off, and those under way."""

    async def __aenter__(self) -> Self:
        import openai

        # A key must be given: the client would take OPENAI_API_KEY and send it to a stranger.
        self._client = openai.AsyncOpenAI(
            base_url=self.settings.base_url,
            api_key=self._key or "none",
            timeout=openai.Timeout(self.settings.timeout_s, connect=min(CONNECT_S, self.settings.timeout_s)),
            max_retries=self.settings.retries,
        )
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def lost_tokens(self) -> tuple[int, int]:
        """Prompt tokens and new tokens of answers that broke off, as far as the server has told them."""
        return (
            sum(reading.prompt_tokens or 0 for reading in self._broken),
            sum(reading.completion_tokens or 0 for reading in self._broken),
        )

    async def answer(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        n: int = 1,
        seed: int = 0,
        temperature: float | None = None,
    ) -> list[Reply]:
        """Replies that hold ``n`` completions together, in order; ``prompt`` is one user message, or all messages.

        One request where the server knows ``n``, else several at once; sample i has the seed ``seed`` + i, which
        is also what vLLM and llama-server give the completions of one request. ``temperature`` None is the one of the
        settings. Raises BackendError that names address and cause.
        """
        import openai

        asked = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt),
            "temperature": self.settings.temperature if temperature is None else temperature,
            "max_tokens": self.settings.max_tokens,
        }
        first: list[Reply] = []
        if n > 1 and not self._one_at_a_time:
            try:
                first = [await self._reply({**asked, "n": n, "seed": seed}, n)]
            except BackendError as error:
                cause = error.__cause__
                if not isinstance(cause, openai.APIStatusError) or cause.status_code not in _NO_CHOICES_FOR_N:
                    raise
        have = sum(len(reply.completions) for reply in first)
        if n > 1 and have < n:
            self._one_at_a_time = True
        rest = await concurrently(self._reply({**asked, "seed": seed + i}, 1) for i in range(have, n))
        return first + rest

    async def _reply(self, asked: Mapping[str, Any], n: int) -> Reply:
        async with self._slots:
            started = time.monotonic()
            attempt = 0
            while True:
                reading = _Reading()
                self._broken.append(reading)
                try:
                    await (self._streamed if self.settings.stream else self._whole)(asked, reading)
                    self._broken.remove(reading)
                    return reading.reply(n, started)
                except _PassingError as failure:
                    if attempt == self.settings.retries:
                        raise self._error(f"{failure}, {self._last_attempt}", failure.advice) from failure
                    await asyncio.sleep(failure.wait_s or min(8.0, 0.5 * 2**attempt) * random.uniform(0.75, 1.0))
                attempt += 1

    async def _whole(self, asked: Mapping[str, Any], reading: _Reading) -> None:
        answer = await self._opened({**asked, "stream": False})
        try:
            reading.add(answer)
        except (AttributeError, TypeError) as error:
            raise self._garbage(_as_sent(answer)) from error
        if not reading.is_whole:
            raise self._garbage(_as_sent(answer))

    async def _streamed(self, asked: Mapping[str, Any], reading: _Reading) -> None:
        import openai

        stream = await self._opened({**asked, "stream": True, "stream_options": {"include_usage": True}})
        chunk = None
        try:
            async with stream:
                if "text/event-stream" not in stream.response.headers.get("content-type", ""):
                    raise self._garbage(await _body(stream.response))
                while True:
                    # Not the client's timeout: servers keep a connection alive with comments while nothing happens.
                    async with asyncio.timeout(self.settings.timeout_s):
                        chunk = await anext(stream, None)
                    if chunk is None:
                        break
                    reading.add(chunk)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _PassingError(f"sent no token for {self.settings.timeout_s:g} s", _STALLED) from error
        except openai.APIConnectionError as error:
            raise _PassingError(f"broke off its answer ({error.__cause__!r})", _CUT) from error
        except openai.APIError as error:
            raise _PassingError(f"reported an error in its answer ({self._brief(str(error.body))})", _CUT) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise self._garbage(getattr(error, "doc", None) or _as_sent(chunk)) from error
        if not reading.is_whole:
            raise _PassingError("ended its answer without a finish_reason", _CUT)

    async def _opened(self, asked: dict[str, Any]) -> Any:
        """What the client gives for a request: a stream, or the whole answer."""
        import openai

        try:
            return await self._client.chat.completions.create(**asked)
        except openai.RateLimitError as error:
            wait = _limit_ends(error.response.headers)
            if wait is not None and wait <= LONGEST_WAIT_S:
                raise _PassingError(f"answered 429 ({self._brief(error.response.text)})", _LIMITED, wait) from error
            raise self._explained(error) from error
        except openai.APIError as error:
            raise self._explained(error) from error
        except ValueError as error:
            raise self._garbage(getattr(error, "doc", "")) from error

    def _explained(self, error: openai.APIError) -> BackendError:
        import openai

        if isinstance(error, openai.APITimeoutError) and type(error.__cause__).__name__ != "ConnectTimeout":
            return self._error(f"sent nothing for {self.settings.timeout_s:g} s, {self._last_attempt}", _STALLED)
        if isinstance(error, openai.APIStatusError):
            what = f"answered {error.status_code} ({self._brief(error.response.text)})"
            return self._error(what, self._advice(error.status_code))
        return self._error(
            f"could not be asked ({error.__cause__!r}), {self._last_attempt}",
            "start the server or correct the address",
        )

    def _advice(self, status: int) -> str:
        settings = self.settings
        if status in (401, 403):
            if settings.key_variable:
                return f"put a valid key into the environment variable {settings.key_variable}"
            return "name the environment variable that holds the API key"
        if status == 404:
            return f"check the model's name ({settings.shown_url}/models lists what there is) and the address"
        if status == 429:
            return _LIMITED
        if status >= 500:
            return f"{settings.retries} retries did not help: look into the server's log"
        return "check the model's name, max_tokens and the length of the question"

    def _garbage(self, body: str) -> BackendError:
        return self._error(
            f"answered what is no chat completion ({self._brief(body)})",
            "check that the address is that of an OpenAI-compatible API",
        )

    @property
    def _last_attempt(self) -> str:
        return f"attempt {self.settings.retries + 1} of {self.settings.retries + 1}"

    def _error(self, what: str, advice: str) -> BackendError:
        return BackendError(f"{self.settings.shown_url} (model {self.settings.model!r}) {what}; {advice}")

    def _brief(self, body: str) -> str:
        text = " ".join(body.split())
        if self._key:
            text = text.replace(self._key, "***")
        return (text[:BODY_CHARS] + "..." if len(text) > BODY_CHARS else text) or "an empty body"


_STALLED = "check the server's load, lower the concurrency or allow more time"
_CUT = "look into the server's log (llama_cpp.server needs --interrupt_requests false)"
_LIMITED = "lower the concurrency, allow more retries or go on later"


class _PassingError(Exception):
    """A failure after which the same request may succeed."""

    def __init__(self, what: str, advice: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.advice = advice
        self.wait_s = wait_s


@dataclass(eq=False)
class _Reading:
    """What has come of an answer."""

    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def add(self, part: Any) -> None:
        """Take in a chunk of a stream, or a whole answer. Raises AttributeError or TypeError where it is neither."""
        for choice in part.choices or ():
            piece = getattr(choice, "delta", None) or choice.message
            self.texts[choice.index] = self.texts.get(choice.index, "") + (piece.content or "")
            if choice.finish_reason:
                self.reasons[choice.index] = choice.finish_reason
        if part.usage:
            self.prompt_tokens = _count(part.usage.prompt_tokens)
            self.completion_tokens = _count(part.usage.completion_tokens)

    @property
    def is_whole(self) -> bool:
        return bool(self.texts) and self.texts.keys() == self.reasons.keys()

    def reply(self, n: int, started: float) -> Reply:
        completions = tuple(Completion(self.texts[i], self.reasons[i]) for i in sorted(self.texts))
        return Reply(completions[:n], self.prompt_tokens, self.completion_tokens, started, time.monotonic())


def _count(told: Any) -> int | None:
    """A number of tokens as a server told it; None where it is none."""
    return told if isinstance(told, int) and told >= 0 else None


async def concurrently(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Results of all coroutines in order; where one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"the environment variable {variable} is to hold the API key and is not set; export it first")
    return key


def _limit_ends(headers: Mapping[str, str]) -> float | None:
    """Seconds until a rate limit ends, where headers say so that the client does not go by."""
    retry_after = _duration(headers.get("retry-after", ""))
    if retry_after is not None:
        return retry_after if retry_after > CLIENT_WAITS_S else None
    resets = (_duration(headers.get(f"x-ratelimit-reset-{what}", "")) for what in ("requests", "tokens"))
    return max((reset for reset in resets if reset is not None), default=None)


def _duration(text: str) -> float | None:
    """Seconds of "20", "1.5s", "20ms" or "6m0s"; None for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _as_sent(part: Any) -> str:
    """What the client made an object of, as the JSON it was."""
    return str(part.to_json(indent=None)) if hasattr(part, "to_json") else str(part)


async def _body(response: Any) -> str:
    """The text of a response; empty where it cannot be had at once."""
    with suppress(Exception):
        async with asyncio.timeout(5):
            return str((await response.aread()).decode(errors="replace"))
    return ""
