"""An endpoint that answers what a local model was unsure of."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from edge_tts.cancellation import Cancellation
from edge_tts.errors import BackendError, InputError
from edge_tts.events import Escalated
from edge_tts.reasoning.answer_reading import read_answer
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.question_kind import AnswerKind
from edge_tts.reasoning.text_format import split_steps
from edge_tts.reasoning.text_prompt import ask
from edge_tts.runtimes.endpoint import Endpoint, EndpointSettings, Reply

KEY_VARIABLE = "EDGE_REASON_ENDPOINT_KEY"
"""Environment variable with the endpoint's API key, if it wants one."""


@dataclass(frozen=True)
class EndpointTarget:
    """``http(s)://HOST/PATH#MODEL``."""

    url: str
    model: str
    prices: tuple[float, float] | None = None
    """Of a million prompt tokens and of a million new tokens, in any currency."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The endpoint that ``text`` names; None where it is no address.

        Raises InputError without a model, and where the ``openai`` package is missing.
        """
        if not text.lower().startswith(("http://", "https://")):
            return None
        url, _, model = text.partition("#")
        if not model:
            raise InputError(f"the endpoint {text!r} names no model; give for example http://127.0.0.1:8000#qwen2.5-7b")
        Endpoint(EndpointSettings(url, model))
        return cls(url, model)

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many tokens cost; None where prices or tokens are not known."""
        if self.prices is None or not prompt_tokens + completion_tokens:
            return None
        return (prompt_tokens * self.prices[0] + completion_tokens * self.prices[1]) / 1e6


@dataclass(frozen=True)
class Answered:
    """What the endpoint said."""

    steps: tuple[str, ...]
    answer: str | None
    escalated: Escalated
    failure: str = ""
    """Why it did not answer."""


def answered(
    target: EndpointTarget, messages: Sequence[Message], kind: AnswerKind, seconds: float | None, cancel: Cancellation
) -> Answered:
    """Ask ``target`` the last of ``messages``; it has ``seconds`` (None: as long as it takes).

    Tokens of answers that broke off count as far as the server has told them. Raises InputError without a key.
    """
    key = KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else None
    settings = EndpointSettings(target.url, target.model, key, retries=1, temperature=0.0)
    endpoint = Endpoint(settings)
    told = [{"role": message.role, "content": message.content} for message in ask(messages, kind)]
    began = time.monotonic()

    async def asked() -> Reply:
        async with endpoint:
            (reply,) = await endpoint.answer(told)
        return reply

    async def bounded() -> Reply:
        task = asyncio.ensure_future(asked())
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(task.cancel)

        with cancel.telling(stop):
            return await asyncio.wait_for(task, seconds)

    reply, failure = None, ""
    try:
        reply = asyncio.run(bounded())
    except TimeoutError:
        left = f"within the {seconds:.0f} s that were left"
        failure = f"{settings.shown_url} did not answer {left}; allow a longer deadline"
    except asyncio.CancelledError:
        failure = f"{settings.shown_url} was not waited for: the question was cancelled"
    except BackendError as error:
        failure = str(error)
    tokens = _tokens(endpoint, reply)
    done = Escalated(
        target.model, settings.shown_url, *tokens, seconds=time.monotonic() - began, price=target.price(*tokens)
    )
    if reply is None:
        return Answered((), None, done, failure)
    (completion,) = reply.completions
    is_cut = completion.finish_reason != "stop"
    answer = read_answer(completion.text, messages[-1].content, kind, is_cut=is_cut)
    return Answered(split_steps(completion.text), answer, done)


def _tokens(endpoint: Endpoint, reply: Reply | None) -> tuple[int, int]:
    """Prompt tokens and new tokens of all that was asked, as far as they are known."""
    prompt, new = endpoint.lost_tokens
    if reply is None:
        return prompt, new
    return prompt + (reply.prompt_tokens or 0), new + (reply.completion_tokens or 0)
