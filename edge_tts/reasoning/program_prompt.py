"""How a policy is asked for a program: an instruction, and problems with their programs, shown as earlier turns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgramPrompt:
    """What precedes the question."""

    instruction: str
    examples: tuple[tuple[str, str], ...]
    """Problems, and the programs that solve them; each line of a program ends in a newline."""


INSTRUCTION = (
    "Solve the problem with a short Python program. Write only code: one assignment a line, with names that say what "
    "the values are. The last line assigns the result to `answer`."
)
ROLLS = (
    "A baker fills 4 trays with 15 rolls each. He sells 38 rolls in the morning and half of the rest in the "
    "afternoon. How many rolls are left?"
)
BOOK = (
    "Mia pays $24 for a book after a discount of 20%. Her brother pays the full price for the same book. How "
    "many dollars do they pay together?"
)
PROMPT = ProgramPrompt(
    INSTRUCTION,
    (
        (
            ROLLS,
            "rolls_baked = 4 * 15\n"
            "rolls_after_morning = rolls_baked - 38\n"
            "rolls_sold_afternoon = rolls_after_morning / 2\n"
            "answer = rolls_after_morning - rolls_sold_afternoon\n",
        ),
        (
            BOOK,
            "price_paid_by_mia = 24\n"
            "discount_rate = 20 / 100\n"
            "full_price = price_paid_by_mia / (1 - discount_rate)\n"
            "answer = price_paid_by_mia + full_price\n",
        ),
    ),
)
