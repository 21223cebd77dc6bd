"""Formats of reasoning: how a policy is asked, where a step ends, how the answer is read. One interface.

A format watches a sequence grow. While a step is written it may put text into it (``writes``); when a step is complete
it takes it, runs or reads it, and may end the candidate with an answer or with what is wrong (``extended``).

``text`` is for any chat model: steps are paragraphs, the answer is boxed. ``equations`` is for a policy that was
fine-tuned for it: an equation a line, results written by the calculator, the answer behind a marker. ``program`` is
in :mod:`edge_tts.reasoning.program_format`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal, Protocol

from edge_tts.core import Policy, StepEvent, StepWriter, Trace
from edge_tts.reasoning.answer_reading import has_answered, read_answer, vote_key
from edge_tts.reasoning.arithmetic_check import false_equations
from edge_tts.reasoning.chat_template import ChatTemplate, Prompt
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.prompt_tokens import prompt_tokens
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.reasoning.question_kind import AnswerKind, kind_of
from edge_tts.reasoning.text_format import split_steps
from edge_tts.reasoning.text_prompt import Examples, ask
from edge_tts.reasoning.thinking import split_thinking

FormatName = Literal["text", "program", "equations"]

TRACE_TOKENS: Mapping[FormatName, int] = MappingProxyType({"text": 512, "program": 256, "equations": 200})
"""New tokens a trace may take where the caller sets no limit."""
USUAL_TOKENS: Mapping[FormatName, int] = MappingProxyType({"text": 300, "program": 60, "equations": 50})
"""New tokens of a usual trace: what the formats took on GSM8K."""


DOUBTED_WEIGHT = 0.5
"""How much the vote of a text counts that states an equation of numbers that does not hold. Chosen by hand;
``python -m edge_tts.bench.doubts`` fits it on a study of problems solved in words."""


class Asked(Protocol):
    """One question in one format."""

    @property
    def name(self) -> FormatName: ...

    @property
    def delimiter(self) -> str:
        """What ends a step."""

    @property
    def writes(self) -> StepWriter | None:
        """What the runtime itself writes into a step under way; None where it writes nothing."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to messages that the model's template does not take as they are."""

    def prompt(self, policy: Policy, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        """The tokens that ask the question, with ``attempts`` to revise shown, oldest first."""

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        """``trace`` with the step of ``event``.

        A step that a token limit or a deadline cut answers nothing: "72" may have been meant to be "720".
        """


@dataclass(frozen=True)
class AskedEquations:
    """A question in the ``equations`` format of a pack."""

    prompts: PromptFormat
    question: str
    calculator: CalculatorFormat | None = None
    """None leaves the results of equations to the policy."""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> FormatName:
        return "equations"

    @property
    def delimiter(self) -> str:
        return self.prompts.step_delimiter

    @property
    def writes(self) -> StepWriter | None:
        return self.calculator.written if self.calculator else None

    def prompt(self, policy: Policy, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        texts = [self.prompts.step_delimiter.join(trace.steps) for trace in attempts]
        return prompt_tokens(self.prompts.pieces(self.question, texts), policy)

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        return trace.extended(event, self.prompts.answer_marker)


@dataclass(frozen=True)
class AskedText:
    """Messages, the last of which asks, in the ``text`` format."""

    template: ChatTemplate
    messages: tuple[Message, ...]
    kind: AnswerKind
    extra: tuple[str, ...] = ()
    """Notes that are not the template's."""
    examples: Examples = ()
    """Shown before the messages."""

    @classmethod
    def of(cls, template: ChatTemplate, messages: tuple[Message, ...], kind: AnswerKind | None = None) -> AskedText:
        """``kind`` None is told from the question."""
        return cls(template, messages, kind or kind_of(messages[-1].content))

    @property
    def name(self) -> FormatName:
        return "text"

    @property
    def delimiter(self) -> str:
        return "\n\n"

    writes = None

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.extra, *self._rendered.notes)

    @property
    def turns(self) -> tuple[Message, ...]:
        """All that the policy is told before it answers."""
        return ask(self.messages, self.kind, self.examples)

    @cached_property
    def _rendered(self) -> Prompt:
        return self.template.render(self.turns)

    def prompt(self, policy: Policy, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        if not attempts:
            return prompt_tokens(self._rendered.pieces, policy)
        revised = [turn for trace in attempts for turn in (Message("assistant", trace.text), Message("user", _REVISE))]
        return prompt_tokens(self.template.render((*self.turns, *revised)).pieces, policy)

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        text = trace.text + event.text + (self.delimiter if event.stop in (None, "step") else "")
        cut = event.stop in ("length", "cancelled")
        thinking = self._rendered.opens_thinking
        finished = event.stop == "end" or (not cut and has_answered(text, thinking))
        question = self.messages[-1].content
        answer = read_answer(text, question, self.kind, is_cut=not finished, is_thinking=thinking)
        steps = split_steps(split_thinking(text, thinking).text)
        doubts = tuple(equation.text for step in steps for equation in false_equations(step))
        begun = steps[: len(trace.steps)] == trace.steps  # not where a formula of the last step went on
        return replace(
            trace,
            tokens=trace.tokens + event.tokens,
            steps=steps,
            doubts=doubts,
            weight=DOUBTED_WEIGHT if doubts else 1.0,
            scores=trace.scores if begun else (),
            text=text,
            finished=trace.finished or finished,
            answer=answer,
            vote=vote_key(answer, self.kind) if answer else "",
            logprob=trace.logprob + event.logprob,
        )


_REVISE = (
    "Check the solution above for mistakes. Then solve the problem again from the start, and put your final "
    r"answer within \boxed{}."
)
