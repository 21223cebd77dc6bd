r"""Checks the equations of numbers in a step of prose: "12 * 8 = 96", "$5 \times 3 = 15$", "20% of 50 is 10".

Only what is surely an equation of numbers is judged. What has letters, words or units inside it, or functions, is
left alone: a step is marked wrong for a wrong sum, not for a way of writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from edge_tts.answers.arithmetic import MAX_EXPRESSION_CHARS, evaluate

LONGEST_STEP = 20_000
"""Characters of a step that are read."""

_LATEX: tuple[tuple[str, str], ...] = (
    (r"(?<![\d)])\*\*([^\n]{1,200}?)\*\*(?![\d(])", r"\1"),
    (r"\\\\(?:\[\d+pt\])?", "\n"),
    (r"\\[!,;: ]|~|\\q?quad\b", " "),
    (r"\\left|\\right|\{,\}", ""),
    (r"\\(?:boxed|mathbf)\s*\{([^{}]{1,60})\}", r"\1"),
    (r"\\[\[\]()]", "\n"),
    (r"\\([$%])", r"\1"),
    (r"\\(?:times|cdot)(?![A-Za-z])|[×·⋅∙]", "*"),
    (r"\\div(?![A-Za-z])|÷", "/"),
    (r"\\approx(?![A-Za-z])|≈", "≈"),
    (r"[\u2212\u2013]", "-"),
    (r"\\[dt]?frac\s*\{([^{}]{1,60})\}\s*\{([^{}]{1,60})\}", r"((\1)/(\2))"),
    (r"(?<=\d) ?[xX] ?(?=[$\d(])", "*"),
    (r"(?<=\d%) of (?=\$?\d)", " * "),
)
"""What stands around a formula, and other ways to write an operator."""
_CHARACTERS = r"0-9.,+\-*/()$% "
_LEFT = re.compile(rf"[{_CHARACTERS}]+\Z")
_RIGHT = re.compile(rf"[{_CHARACTERS}]+")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•+]|\d+[.)])\s+")
_SIGN = re.compile(r"(?<![<>!=:])(=|≈)(?![=<>])|(?<=\d) (?:is|equals|gives) (?=\$?-?\d)")
_GOES_ON = re.compile(r"\\(?!text)|[\^!{]|(?:hundred|thousand|million|billion|dozen)\b")
"""What makes another number of the one before it."""
_BROKEN_OFF = re.compile(r"(?:\b(?:[xX]|by|minus|plus|times)|\d%?\s+(?:and|of))\s*\Z|\d\w*\Z")
"""What a left side does not begin after, since it goes on before that."""
_OPERATION = re.compile(r"[\d)%] *[-+*/] *[-$(\d.]")


@dataclass(frozen=True)
class Equation:
    """An equation of numbers that a step states."""

    text: str
    """Such as "12 * 8 = 96", in plain signs."""
    value: Fraction
    """What its left side is."""
    holds: bool


def equations(step: str) -> tuple[Equation, ...]:
    """The equations that ``step`` states and that can be judged, in order. Never raises, on any text."""
    text = step[:LONGEST_STEP]
    for pattern, replacement in _LATEX:
        text = re.sub(pattern, replacement, text)
    return tuple(equation for line in text.splitlines() for equation in _of_line(line))


def false_equations(step: str) -> tuple[Equation, ...]:
    """Those of ``equations(step)`` that do not hold."""
    return tuple(equation for equation in equations(step) if not equation.holds)


def _of_line(line: str) -> Iterator[Equation]:
    signs = list(_SIGN.finditer(line))
    bounds = [0, *(sign.end() for sign in signs)]
    ends = [*(sign.start() for sign in signs), len(line)]
    sides = [line[start:end] for start, end in zip(bounds, ends, strict=True)]
    if sides:
        sides[0] = _LIST_ITEM.sub("", sides[0])
    for index, (left, right) in enumerate(pairwise(sides)):
        is_chained = index + 2 < len(sides)
        sign = signs[index][1] or "="
        if equation := _judged(left, sign, right, is_first=index == 0, is_chained=is_chained):
            yield equation


def _judged(left: str, sign: str, right: str, is_first: bool, is_chained: bool) -> Equation | None:
    """The equation between the end of ``left`` and the beginning of ``right``, or None where there is none.

    ``is_first`` allows words before it, ``is_chained`` says that another sign follows ``right``.
    """
    expression = _left_side(left, is_first)
    if not expression or not _OPERATION.search(expression):
        return None
    value = _value(expression)
    result = _right_side(right)
    if value is None or not result:
        return None
    stated = _value(result)
    if stated is None:
        return None
    holds = _agree(value, stated, result, sign)
    if not holds and re.match(r"[$\d., ]+(?:cents?\b|¢)", right):
        holds = 100 * value == stated  # "$2.50 - $2.24 = 26 cents"
    if not holds and is_chained and (leading := re.match(r"\$?[\d.,]+%?", result)):
        # "2 + 3 = 5 * 4 = 20" is a way of writing.
        first = _value(leading[0])
        holds = first is not None and _agree(value, first, leading[0], sign)
    if not holds and is_first and " - " in expression:
        # The dash of "Week 2 - 5 * 3 = 15".
        rest = _value(expression.partition(" - ")[2])
        holds = rest is not None and _agree(rest, stated, result, sign)
    return Equation(f"{expression} {sign} {result}", value, holds)


def _value(expression: str) -> Fraction | None:
    return evaluate(re.sub(r"(\d[\d,]*(?:\.\d+)?|\.\d+)%", r"(\1/100)", expression))


def _left_side(text: str, is_first: bool) -> str:
    """The arithmetic that ``text`` ends in; "" where that is a part of something else."""
    match = _LEFT.search(text[-MAX_EXPRESSION_CHARS - 20 :])
    if match is None:
        return ""
    before = text[: len(text) - len(match[0])]
    found = match[0]
    if before and (not is_first or not found[0].isspace()) and not before.endswith((":", "=", "[", '"', "'")):
        return ""
    found = found.strip(" ,")
    while found.count("(") > found.count(")") and found.startswith("("):
        found = found[1:].lstrip()
    if before and (found[:1] in "+-*/.%)" or _BROKEN_OFF.search(before)):
        return ""  # "60 minutes x 3/4" without its first number
    return found


def _right_side(text: str) -> str:
    """The arithmetic that ``text`` begins with; "" where it is a part of something else."""
    match = _RIGHT.match(text)
    if match is None:
        return ""
    after = text[match.end() :]
    found = match[0]
    if (remark := re.match(r"(.*[\d)%])\s+\($", found)) and re.match(r"[A-Za-z]{2}", after):
        found = remark[1]  # "7 (since ..."
    elif not found[-1].isspace() and re.match(r"[\w^!{\\:]", after):
        return ""
    if re.search(r"[-+*/(]\s*$", found) or _GOES_ON.match(after.lstrip()):
        return ""
    found = found.strip().rstrip(".,+-*/( ")
    found = found.rstrip("$").rstrip()
    while found.count(")") > found.count("(") and found.endswith(")"):
        found = found[:-1].rstrip(" .,")
    return found


def _agree(value: Fraction, stated: Fraction, written: str, sign: str) -> bool:
    """Whether ``stated``, as it is ``written``, is ``value`` or a rounding of it."""
    is_percentage = written.endswith("%") and not _OPERATION.search(written)
    readings = (stated, 100 * stated) if is_percentage else (stated,)
    for reading in readings:
        unit = _unit(written) * (Fraction(1, 100) if is_percentage and reading == stated else 1)
        difference = abs(value - reading)
        # Two thirds is written 0.67, and 0.66 too.
        is_truncated = difference < unit and (unit < 1 or sign == "≈")
        if difference <= unit / 2 or is_truncated or (sign == "≈" and difference <= abs(value) / 20):
            return True
    return False


def _unit(written: str) -> Fraction:
    """The worth of the last digit of a number; 0 for an expression, which is exact."""
    if _OPERATION.search(written):
        return Fraction(0)
    decimals = re.search(r"\.(\d+)", written)
    return Fraction(1, 10 ** len(decimals[1])) if decimals else Fraction(1)
