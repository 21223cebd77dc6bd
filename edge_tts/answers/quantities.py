"""Plain quantities: a number, and the unit, currency or percent sign that may come with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from edge_tts.answers.arithmetic import evaluate

TOLERANCE = Fraction(1, 10**6)
"""How far apart equal numbers may be: an absolute bound above 1 and a relative one below."""

PERCENT = "%"
TIME = "o'clock"
"""Family of times of day; their value is minutes after 12, their unit "am", "pm" or ""."""

_CURRENCY = r"US\$|A\$|C\$|[$€£¥₹]|(?:USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF)(?![A-Za-z])"
_PREFIX = re.compile(rf"([-+]?)\s*({_CURRENCY})\s*")
_UNIT = r"%|°\s*[CFK]?|[$€£¥₹]|[A-Za-z][A-Za-z ./]{0,30}(?:\^\{[23]\})?[A-Za-z ./]{0,30}"
_NUMBER = re.compile(rf"((?:\\frac|[eE](?=[-+]?\d)|[^A-Za-z%°$€£¥₹])*[\d.)}}])(\s*)({_UNIT})?")
_TIME = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MIXED = re.compile(r"([-+]?)\s*(\d+)(?:\s+(\d+)\s*/\s*(\d+)|\s*\\frac\{(\d+)\}\{(\d+)\})")
_FRACTION = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
_SCIENTIFIC = re.compile(r"(\d+\.?\d*|\.\d+)[eE]([-+]?\d{1,3})(?!\d)")

_SYMBOLS = {"e", "i", "pi"}
_SAME_UNITS = {
    "dollar": "$|us$|usd|buck", "euro": "€|eur", "pound": "£|gbp|lb", "yen": "¥|jpy", "rupee": "₹|inr", "yuan": "cny",
    "%": "percent|per cent|pct", "°": "degree", "°c": "degrees celsius|celsius", "°f": "degrees fahrenheit|fahrenheit",
    "hour": "hr|h", "minute": "min", "second": "sec", "foot": "feet|ft", "inch": "in", "person": "people",
    "kilometer": "km|kilometre", "meter": "m|metre", "centimeter": "cm|centimetre", "millimeter": "mm|millimetre",
    "kilogram": "kg", "gram": "g", "liter": "l|litre", "miles per hour": "mph", "kilometers per hour": "km/h|kph",
}  # fmt: skip
UNITS = frozenset(_SAME_UNITS)
"""Units in the one spelling that :class:`Quantity` has."""
_UNIT_NAMES = {same: name for name, others in _SAME_UNITS.items() for same in others.split("|")}


@dataclass(frozen=True)
class Quantity:
    """A number and its unit."""

    value: Fraction
    unit: str = ""
    """In one spelling and in the singular; "" where the answer has none."""
    family: str = ""
    """``TIME`` for times of day; only quantities of one family are compared."""


def read_quantity(text: str) -> Quantity | None:
    """The quantity that a normalised ``text`` states, or None where it states something else."""
    if (time := _TIME.fullmatch(text)) and (time[2] or time[3]):
        return _time(time)
    currency = ""
    if prefix := _PREFIX.match(text):
        text, currency = prefix[1] + text[prefix.end() :], prefix[2]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    unit = (match[3] or "").casefold().strip(" .")
    # "3x" and "2e" are formulas, "5 x" and "5kg" are quantities.
    if unit in _SYMBOLS or (len(unit) == 1 and unit.isalpha() and not match[2]):
        return None
    value = _value(match[1])
    if value is None or (currency and unit and _unit(currency) != _unit(unit)):
        return None
    return Quantity(value, _unit(currency or unit))


def same_quantity(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities are equal. A unit that only one of them has is ignored."""
    if a.family != b.family or (a.unit and b.unit and a.unit != b.unit):
        return False
    return any(close(x, y) for x in _values(a, b) for y in _values(b, a))


def close(a: Fraction, b: Fraction) -> bool:
    """Equal, or as close as a decimal cut after six digits: below 1 the tolerance is relative."""
    return abs(a - b) <= TOLERANCE * min(Fraction(1), max(abs(a), abs(b)))


def _values(quantity: Quantity, other: Quantity) -> tuple[Fraction, ...]:
    """What a quantity may stand for beside ``other``: 50% is both 50 and 0.5 where the other side has no sign."""
    if quantity.unit == PERCENT and not other.unit:
        return quantity.value, quantity.value / 100
    return (quantity.value,)


def _value(body: str) -> Fraction | None:
    text = _THOUSANDS.sub("", body)
    if "," in text:
        return None
    if mixed := _MIXED.fullmatch(text):  # a mixed number is a sum
        whole, above, below = (int(part) for part in mixed.groups()[1:] if part)
        value = whole + Fraction(above, below) if below else None
        return -value if value and mixed[1] == "-" else value
    for _ in range(8):  # nested fractions
        text = _FRACTION.sub(r"((\1)/(\2))", text)
    text = _SCIENTIFIC.sub(r"(\1*10**(\2))", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"**(\1)", text)
    return evaluate(text, powers=True)


def _time(match: re.Match[str]) -> Quantity | None:
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    if hour > (12 if half else 23):
        return None
    unit = f"{half}m".casefold() if half else "pm" if hour > 12 else ""
    return Quantity(Fraction(hour % 12 * 60 + minute), unit, TIME)


def _unit(text: str) -> str:
    """One spelling and the singular of a unit."""
    unit = " ".join(text.casefold().split())
    singular = re.sub(r"(x|s|ch|sh)es$", r"\1", unit).removesuffix("s")
    return _UNIT_NAMES.get(unit) or _UNIT_NAMES.get(singular) or singular
