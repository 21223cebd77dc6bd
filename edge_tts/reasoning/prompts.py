"""How a question, and earlier attempts at it, become the text a policy continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_tts.core import StepEvent, Trace

ATTEMPTS_IN_CONTEXT = 4
"""A revision sees this many of the latest attempts (Snell et al. 2024, section 6)."""


@dataclass(frozen=True)
class CalculatorFormat:
    """Where a pack's policy opens an expression, and what follows the result.

    When the policy writes "=" and the text since ``open`` (or since the step began, where ``open``
    is empty) is plain arithmetic, the runtime writes the result and ``close`` itself.
    """

    open: str = ""
    close: str = "\n"


@dataclass(frozen=True)
class PromptFormat:
    """Templates a pack declares. The assistant turn is left open: the policy only continues it."""

    prompt: str = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    attempt: str = "{attempt}\nRevise:\n"
    step_delimiter: str = "\n"
    answer_marker: str = "#### "
    end: str = "<|im_end|>"

    def render(self, question: str, attempts: Sequence[str] = ()) -> str:
        """The prompt for ``question``, with the latest ``attempts`` already in the open turn."""
        earlier = "".join(self.attempt.format(attempt=a) for a in attempts[-ATTEMPTS_IN_CONTEXT:])
        # A question must not open or close turns of its own.
        return self.prompt.format(question=question.replace("<|", "< |")) + earlier

    def text_of(self, trace: Trace) -> str:
        """A trace as it is shown to a policy that revises it."""
        return self.step_delimiter.join(trace.steps)

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        """``trace`` with the step of ``event``."""
        return trace.extended(event, self.answer_marker)
