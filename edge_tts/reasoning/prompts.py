"""How a question, and earlier attempts at it, become the text a policy continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.errors import InputError
from edge_tts.reasoning.chat_template import Piece

ATTEMPTS_IN_CONTEXT = 4
"""A revision sees this many of the latest attempts (Snell et al. 2024, section 6)."""


@dataclass(frozen=True)
class CalculatorFormat:
    """Where a pack's policy opens an expression, and what follows the result."""

    open: str = ""
    close: str = "\n"

    def written(self, step: str) -> str | None:
        """A :data:`~edge_tts.core.StepWriter`: behind "=", the result and ``close``.

        None unless ``step`` ends in "=" and plain arithmetic comes before it, since ``open`` or, where that is empty,
        since the step began.
        """
        if not step.endswith("="):
            return None
        _, found, expression = step[:-1].rpartition(self.open) if self.open else ("", "yes", step[:-1])
        value = evaluate(expression) if found else None
        return None if value is None else format_number(value) + self.close


@dataclass(frozen=True)
class PromptFormat:
    """Templates a pack declares. The assistant turn is left open: the policy only continues it.

    Raises InputError for a template without its place, and for an empty delimiter or marker.
    """

    prompt: str = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    attempt: str = "{attempt}\nRevise:\n"
    step_delimiter: str = "\n"
    answer_marker: str = "#### "
    end: str = "<|im_end|>"

    def __post_init__(self) -> None:
        for name, place in (("prompt", "{question}"), ("attempt", "{attempt}")):
            if place not in getattr(self, name):
                raise InputError(f"the template {name} must contain {place}, found {getattr(self, name)!r}")
        if not self.step_delimiter:
            raise InputError("the step_delimiter must not be empty; give what ends a step")
        if not self.answer_marker.strip():
            raise InputError(f"the answer_marker must be more than space, found {self.answer_marker!r}")

    def render(self, question: str, attempts: Sequence[str] = ()) -> str:
        """The prompt for ``question``, with the latest ``attempts`` already in the open turn."""
        return "".join(piece.text for piece in self.pieces(question, attempts))

    def pieces(self, question: str, attempts: Sequence[str] = ()) -> tuple[Piece, ...]:
        """The same as pieces: the templates' own text is control, ``question`` and ``attempts`` are data."""
        filled = _filled(self.prompt, "{question}", question)
        for attempt in attempts[-ATTEMPTS_IN_CONTEXT:]:
            filled += _filled(self.attempt, "{attempt}", attempt)
        return tuple(piece for piece in filled if piece.text)


def _filled(template: str, place: str, text: str) -> list[Piece]:
    before, _, after = template.partition(place)
    return [Piece(before, control=True), Piece(text, control=False), Piece(after, control=True)]
