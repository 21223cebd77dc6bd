"""Values of a program's variables, as people write them."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

LONGEST_VALUE = 200
"""Characters of a text, and digits of a number, that are read."""
MOST_ITEMS = 20
"""Items of a list that is read."""
SIGNIFICANT_DIGITS = 10
"""Of a number that is not whole: what binary fractions add behind them is no part of it, as in 0.1 + 0.2."""


def plain(value: object) -> str | None:
    """``value`` as people write it: 7.0 as 7, 0.1 + 0.2 as 0.3, True as Yes, a list as its items.

    None where it is nothing that answers a question: None itself, infinity, a mapping, an object.
    """
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int):
        return str(value) if abs(value) < 10**LONGEST_VALUE else None
    if isinstance(value, float | Decimal | Fraction):
        return _number(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, time):
        return value.isoformat(timespec="minutes")
    if isinstance(value, timedelta):
        days = value / timedelta(days=1)
        return f"{int(days)} day{'' if days == 1 else 's'}" if days and days.is_integer() else str(value)
    if isinstance(value, list | tuple) and 0 < len(value) <= MOST_ITEMS:
        items = [plain(item) for item in value]
        return ", ".join(item for item in items if item is not None) if None not in items else None
    return None


def _number(value: float | Decimal | Fraction) -> str | None:
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return plain(value.numerator)
        # A fraction of few digits is a decimal; a third stays a third.
        return _fixed(Decimal(value.numerator) / value.denominator) if _ends(value) else str(value)
    if not math.isfinite(value):
        return None
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    return _fixed(number) if abs(number.adjusted()) < LONGEST_VALUE else None


def _fixed(number: Decimal) -> str:
    if number != number.to_integral_value():
        # Two decimals of a large number are money.
        number = Decimal(f"{number:.{max(SIGNIFICANT_DIGITS, number.adjusted() + 3)}g}")
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _ends(value: Fraction) -> bool:
    """Whether ``value`` is a decimal of few digits."""
    return bool((10**SIGNIFICANT_DIGITS * value).denominator == 1)
