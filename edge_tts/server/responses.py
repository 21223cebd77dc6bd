"""OpenAI's Responses API, without its state: an item of reasoning and a message, whole or as a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from edge_tts.events import Event, Result
from edge_tts.server.api_error import ApiError
from edge_tts.server.reply import Shape, account, content, reasoning, told, usage

_REASONING, _MESSAGE = 0, 1
"""Places of the two items."""


class ResponseReply:
    """Builds the objects of one response. The events of the search are the summary of its reasoning."""

    ending = ""

    def __init__(self, model: str, shape: Shape, events: bool) -> None:
        """``model``, ``shape`` and ``events`` are those of :class:`ChatReply`."""
        self._model, self._shape, self._events = model, shape, events
        self._id, self._created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._reasoning_id, self._message_id = f"rs_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._number = 0
        self._reasoned = ""

    def whole(self, results: Sequence[Result]) -> dict[str, Any]:
        (result,) = results
        text = content(result, self._shape)
        status = "completed" if result.finished else "incomplete"
        return {
            **self._response(status, [self._reasoning("completed"), self._message(status, text)]),
            "incomplete_details": None if result.finished else {"reason": "max_output_tokens"},
            "usage": _usage(results),
            "edge": account(result),
        }

    def opening(self, choices: int) -> Iterator[dict[str, Any]]:
        yield self._event("response.created", response=self._response("in_progress", []))
        yield self._event("response.in_progress", response=self._response("in_progress", []))
        yield self._event("response.output_item.added", output_index=_REASONING, item=self._reasoning("in_progress"))
        yield self._summary("response.reasoning_summary_part.added", part={"type": "summary_text", "text": ""})

    def progress(self, choice: int, event: Event) -> Iterator[dict[str, Any]]:
        """A piece of the summary; with ``events`` it carries the event, too."""
        text = reasoning(event)
        if text or self._events:
            self._reasoned += text
            extra = {"edge": {"event": told(choice, event)}} if self._events else {}
            yield self._summary("response.reasoning_summary_text.delta", delta=text) | extra

    def answer(self, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
        whole = self.whole(results)
        reasoned, message = whole["output"]
        yield self._summary("response.reasoning_summary_text.done", text=self._reasoned)
        part = {"type": "summary_text", "text": self._reasoned}
        yield self._summary("response.reasoning_summary_part.done", part=part)
        yield self._event("response.output_item.done", output_index=_REASONING, item=reasoned)
        (part,) = message["content"]
        empty = {**message, "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=_MESSAGE, item=empty)
        yield self._part("response.content_part.added", part={**part, "text": ""})
        for piece in part["text"].splitlines(keepends=True):
            yield self._part("response.output_text.delta", delta=piece, logprobs=[])
        yield self._part("response.output_text.done", text=part["text"], logprobs=[])
        yield self._part("response.content_part.done", part=part)
        yield self._event("response.output_item.done", output_index=_MESSAGE, item=message)
        yield self._event(f"response.{whole['status']}", response=whole)

    def failure(self, error: ApiError) -> dict[str, Any]:
        found = error.body["error"]
        failed = {**self._response("failed", []), "error": {"code": "server_error", "message": found["message"]}}
        return self._event("response.failed", response=failed)

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": None,
            "text": {"format": {"type": "json_object" if self._shape.as_json else "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "usage": None,
        }

    def _reasoning(self, status: str) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": self._reasoned}] if self._reasoned else []
        return {"type": "reasoning", "id": self._reasoning_id, "status": status, "summary": summary}

    def _message(self, status: str, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "message", "id": self._message_id, "role": "assistant", "status": status, "content": [part]}

    def _summary(self, kind: str, **fields: Any) -> dict[str, Any]:
        place = {"item_id": self._reasoning_id, "output_index": _REASONING, "summary_index": 0}
        return self._event(kind, **place, **fields)

    def _part(self, kind: str, **fields: Any) -> dict[str, Any]:
        return self._event(kind, item_id=self._message_id, output_index=_MESSAGE, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}


def _usage(results: Sequence[Result]) -> dict[str, Any]:
    found = usage(results)
    return {
        "input_tokens": found["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": found["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": found["total_tokens"],
    }
