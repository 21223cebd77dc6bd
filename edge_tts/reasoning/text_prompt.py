r"""How a policy is asked to reason in words: an instruction, and worked examples, shown as earlier turns.

Examples keep solutions short: a model without them explains at length, with headings and LaTeX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_prompt import BOOK, ROLLS
from edge_tts.reasoning.question_kind import AnswerKind

INSTRUCTIONS: Mapping[AnswerKind, str] = MappingProxyType(
    {
        "math": r"Please reason step by step, and put your final answer within \boxed{}.",
        "choice": r"Please reason step by step, and put the letter of the right option within \boxed{}.",
        "yes-no": r"Please reason step by step, and put your final answer, Yes or No, within \boxed{}.",
        "text": r"Please reason briefly, and put your final answer, as few words as possible, within \boxed{}.",
    }
)
"""What a model is told, by the kind of answer wanted. The first is the sentence Qwen's mathematics models know."""

Examples = tuple[tuple[str, str], ...]
"""Questions and what solves them."""

EXAMPLES: Examples = (
    (
        ROLLS,
        "The trays hold 4 * 15 = 60 rolls.\n\n"
        "After the morning 60 - 38 = 22 rolls are left.\n\n"
        "In the afternoon he sells 22 / 2 = 11 rolls, so 22 - 11 = 11 are left.\n\n"
        r"\boxed{11}",
    ),
    (
        BOOK,
        "Mia pays 100% - 20% = 80% of the full price, so the full price is 24 / 0.8 = 30 dollars.\n\n"
        "Together they pay 24 + 30 = 54 dollars.\n\n"
        r"\boxed{54}",
    ),
)
"""For computations only: where yes, no or a letter is wanted, solutions as short as this were less often right."""


def ask(messages: Sequence[Message], kind: AnswerKind, examples: Examples = ()) -> tuple[Message, ...]:
    """``messages`` with the instruction for ``kind`` in the system message, after what is said there already.

    ``examples`` come behind the system message.
    """
    instruction = INSTRUCTIONS[kind]
    turns = tuple(
        message
        for question, solved in examples
        for message in (Message("user", question), Message("assistant", solved))
    )
    if messages and messages[0].role == "system":
        system = replace(messages[0], content=f"{messages[0].content.rstrip()}\n\n{instruction}".lstrip())
        return (system, *turns, *messages[1:])
    return (Message("system", instruction), *turns, *messages)
