"""An explanation in words of a solution that was found: asked of the policy afterwards, it never changes the answer."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    Trace,
)
from edge_tts.events import Event, Explained
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.prompt_tokens import prompt_tokens
from edge_tts.search.ledger import Ledger

INSTRUCTION = (
    "You explain solutions. In two or three short sentences and plain words, say how the given solution gets from the "
    "numbers in the problem to the answer. No code, no formulas, no other answer."
)
MOST_TOKENS = 120
SAMPLING = Sampling(temperature=0.0, max_tokens=MOST_TOKENS)


def ask(template: ChatTemplate, policy: Policy, messages: Sequence[Message], trace: Trace) -> tuple[int, ...]:
    """The tokens that ask for an explanation of ``trace``, the solution of what the last of ``messages`` asks."""
    question = messages[-1].content.strip()
    steps = "\n".join(trace.steps)
    told = f"Problem:\n{question}\n\nSolution:\n{steps}\n\nAnswer: {trace.answer}"
    return prompt_tokens(template.render((Message("system", INSTRUCTION), Message("user", told))).pieces, policy)


def explain(policy: Policy, prompt: tuple[int, ...], ledger: Ledger) -> Generator[Event, None, str]:
    """The policy's answer to ``prompt``, as far as there is time and room; what it costs is charged."""
    if ledger.exhausted() or len(prompt) + MOST_TOKENS > policy.info.context_length:
        return ""
    request = Request(prompt, 0, SAMPLING, delimiter=" ")
    text, is_cut = "", False
    with closing(policy.generate([request], None if ledger.ends == math.inf else ledger.ends, ledger.cancel)) as events:
        for event in events:
            ledger.charge_step(event)
            is_cut = event.stop in ("length", "cancelled")
            part = event.text + ("" if event.stop else " ")
            text += part
            yield Explained(part)
    return whole_sentences(text, is_cut)


def whole_sentences(text: str, is_cut: bool) -> str:
    """``text`` in one line, without the sentence that a limit of tokens cut."""
    line = " ".join(text.split())
    if not is_cut:
        return line
    end = max(line.rfind(mark) for mark in (". ", "! ", "? "))
    return line[: end + 1] if end > 0 else line
