"""Exact arithmetic on expressions written as text.

Expressions are parsed with :mod:`ast` and only the nodes listed in ``_OPERATORS`` are
evaluated, in exact rational arithmetic; nothing is ever passed to ``eval``.
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

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ALLOWED = re.compile(r"[0-9.+\-*/() ]+")
_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")


def evaluate(expression: str) -> Fraction | None:
    """Return the exact value of ``expression``, or None when it is not plain arithmetic.

    Accepts digits, ``+ - * /``, parentheses, a decimal point, thousands commas, ``$`` and a
    trailing ``%`` on a number. Division by zero and results beyond ``MAX_MAGNITUDE`` give None.
    """
    text = expression.replace(",", "").replace("$", "").replace("×", "*").replace("÷", "/")
    text = re.sub(r"(\d(?:\.\d*)?|\.\d+)%", r"\1/100", text).strip()
    text = _LEADING_ZEROS.sub("", text)
    if not text or len(text) > MAX_EXPRESSION_CHARS or not _ALLOWED.fullmatch(text):
        return None
    if "**" in text or "//" in text:
        return None
    try:
        tree = ast.parse(text, mode="eval")
        value = _value(tree.body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, InvalidOperation, RecursionError):
        return None
    return value if abs(value) <= MAX_MAGNITUDE else None


def format_number(value: Fraction, places: int = 2) -> str:
    """Write ``value`` as the training data does: whole where whole, else at most ``places`` decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    rounded = round(float(value), places)
    if rounded == 0:
        rounded = float(f"{float(value):.2g}")
    text = f"{Decimal(str(rounded)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(node: ast.expr, source: str) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        # The literal's own digits, so that 0.1 stays one tenth.
        return Fraction(Decimal(ast.get_source_segment(source, node) or str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, source)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, source), _value(node.right, source))
    raise ValueError(f"not arithmetic: {type(node).__name__}")
