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
from edge_tts.runtimes.endpoint import Endpoint, EndpointSettings

KEY_VARIABLE = "EDGE_REASON_ENDPOINT_KEY"
"""Environment variable with the endpoint's API key, if it wants one."""


@dataclass(frozen=True)
class EndpointTarget:
    """``http(s)://HOST/PATH#MODEL``."""

    url: str
    model: str
    price_in: float | None = None
    """Currency units per million prompt tokens."""
    price_out: float | None = None

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


@dataclass(frozen=True)
class Answered:
    """What the endpoint said."""

    steps: tuple[str, ...]
    answer: str | None
    escalated: Escalated


def answered(
    target: EndpointTarget, messages: Sequence[Message], kind: AnswerKind, seconds: float | None, cancel: Cancellation
) -> Answered:
    """Ask ``target`` the last of ``messages``. Raises BackendError where it does not answer in ``seconds``."""
    key = KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else None
    settings = EndpointSettings(target.url, target.model, key, retries=1, temperature=0.0)
    endpoint = Endpoint(settings)
    told = [{"role": message.role, "content": message.content} for message in ask(messages, kind)]
    began = time.monotonic()

    async def asked() -> Answered:
        async with endpoint:
            (reply,) = await endpoint.answer(told)
        (completion,) = reply.completions
        text = completion.text
        answer = read_answer(text, messages[-1].content, kind, is_cut=completion.finish_reason != "stop")
        tokens = reply.prompt_tokens or 0, reply.completion_tokens or 0
        price = (tokens[0] * (target.price_in or 0) + tokens[1] * (target.price_out or 0)) / 1e6
        done = Escalated(
            target.model, settings.shown_url, *tokens, seconds=time.monotonic() - began, price=price if price else None
        )
        return Answered(split_steps(text), answer, done)

    async def bounded() -> Answered:
        task = asyncio.ensure_future(asked())
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(task.cancel)

        with cancel.telling(stop):
            return await asyncio.wait_for(task, seconds)

    try:
        return asyncio.run(bounded())
    except TimeoutError as error:
        raise BackendError(
            f"{settings.shown_url} did not answer within the {seconds:.0f} s that were left; allow a longer deadline"
        ) from error
    except asyncio.CancelledError as error:
        raise BackendError(f"{settings.shown_url} was not waited for: the question was cancelled") from error
