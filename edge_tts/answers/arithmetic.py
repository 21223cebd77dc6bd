"""Exact arithmetic on expressions written as text.

Expressions are parsed with :mod:`ast`, and only the operators in ``_OPERATORS`` are evaluated, as exact
fractions. Nothing is passed to ``eval``.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction

MAX_EXPRESSION_CHARS = 120
MAX_MAGNITUDE = 10**15
MAX_POWER_BITS = 4096

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: lambda base, exponent: _power(base, exponent),
}
_ALLOWED = re.compile(r"[0-9.+\-*/() ]+")
_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")


def evaluate(expression: str, powers: bool = False) -> Fraction | None:
    """Return the exact value of ``expression``, or None where it is not plain arithmetic.

    Accepts digits, ``+ - * /``, parentheses, a decimal point, thousands commas, ``$``, a ``%`` after a
    number and, with ``powers``, ``**`` with a whole exponent. Division by zero and results beyond
    ``MAX_MAGNITUDE`` (with ``powers``, numbers of more than ``MAX_POWER_BITS`` bits) give None.
    """
    text = expression.replace(",", "").replace("$", "").replace("×", "*").replace("÷", "/")
    text = re.sub(r"(\d(?:\.\d*)?|\.\d+)%", r"\1/100", text).strip()
    text = _LEADING_ZEROS.sub("", text)
    if not text or len(text) > MAX_EXPRESSION_CHARS or not _ALLOWED.fullmatch(text):
        return None
    if "//" in text or ("**" in text and not powers):
        return None
    try:
        tree = ast.parse(text, mode="eval")
        value = _value(tree.body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, InvalidOperation, RecursionError):
        return None
    return value if powers or abs(value) <= MAX_MAGNITUDE else None


def format_number(value: Fraction, places: int = 2) -> str:
    """Write ``value`` as the training data does: a whole number, or at most ``places`` decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    rounded = round(float(value), places)
    if rounded == 0:
        rounded = float(f"{float(value):.2g}")
    text = f"{Decimal(str(rounded)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or abs(exponent) > MAX_POWER_BITS or bits * abs(exponent) > MAX_POWER_BITS:
        raise ValueError(f"not a power to be computed exactly: {base}**{exponent}")
    return Fraction(base**exponent.numerator)


def _value(node: ast.expr, source: str) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        # The digits as written, so that 0.1 is one tenth.
        return Fraction(Decimal(ast.get_source_segment(source, node) or str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, source)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, source), _value(node.right, source))
    raise ValueError(f"not arithmetic: {type(node).__name__}")
