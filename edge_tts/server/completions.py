"""OpenAI's legacy completions: the same searches, answered as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edge_tts.events import Event, Result
from edge_tts.server.reply import ChatReply, account, finish_reason, told, usage


class CompletionReply(ChatReply):
    """Builds the objects of one text completion. Its streams have no place for reasoning, save with ``events``."""

    def whole(self, results: Sequence[Result]) -> dict[str, Any]:
        """The completion; ``edge`` is the first choice's."""
        choices = [_choice(i, self._content(result), finish_reason(result)) for i, result in enumerate(results)]
        return {
            **self._head("text_completion"),
            "choices": choices,
            "usage": usage(results),
            "edge": account(results[0]),
        }

    def opening(self, choices: int) -> Iterator[dict[str, Any]]:
        """A chunk without text, so that a client sees the stream begin."""
        for i in range(choices):
            yield self._chunk([_choice(i, "")])

    def progress(self, choice: int, event: Event) -> Iterator[dict[str, Any]]:
        if self.events:
            yield self._chunk([]) | {"edge": {"event": told(choice, event)}}

    def answer(self, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
        for i, result in enumerate(results):
            yield self._chunk([_choice(i, self._content(result))])
            yield self._chunk([_choice(i, "", finish_reason(result))]) | {"edge": account(result)}
        if self.include_usage:
            yield self._chunk([]) | {"usage": usage(results)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**super()._chunk(choices), "object": "text_completion"}


def _choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
