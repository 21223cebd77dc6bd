"""Whether two answers mean the same; ``docs/answers.md`` lists what equals what.

Numbers, units, times, words and lists are compared here, at once. Only texts that look like formulas start
the process that runs math-verify, and it is waited for no longer than the caller has time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from edge_tts.answers.formulas import CHECKER, LONGEST_SECONDS, Timeout, countdown
from edge_tts.answers.notation import normalise, without_spaces
from edge_tts.answers.quantities import PERCENT, UNITS, Quantity, close, read_quantity, same_quantity

MAX_FORMULA_CHARS = 200

_REMEMBERED = 2**14
"""Answers whose reading is remembered: votes ask for the same ones again and again."""
_CHOICE = re.compile(r"[(\[]?([A-Za-z])[)\]]?")
_CHOICES = "abcde"
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}|^[A-Za-z]{2}$")
_FORMULA_MARK = re.compile(r"[\\^_{}()\[\]A-Za-z+*/]")
_BRACKETED = re.compile(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])")
_JOIN = re.compile(r",?\s+(?:and|or)\s+")


@dataclass(frozen=True)
class _Reading:
    """What an answer says."""

    key: str
    """Answers with equal keys are equal."""
    quantity: Quantity | None = None
    items: tuple[_Reading, ...] = ()
    """The items of a list, at least two."""
    ordered: bool = False
    """Whether the order of the items matters: that of ``(1, 2)`` does, that of ``1, 2`` does not."""
    formula: str | None = None
    """LaTeX for math-verify; None where it must not be asked."""


def equivalent(a: str, b: str, timeout: Timeout = LONGEST_SECONDS) -> bool:
    """Whether ``a`` and ``b`` state the same answer. Never raises, on any text and in any thread.

    ``timeout`` bounds the slow path for formulas; with 0, only what needs no formulas is found equal.
    """
    return _equal(_read(a), _read(b), timeout)


def is_correct(answer: str | None, truth: str) -> bool:
    """Whether ``answer`` (None where there is none) agrees with ``truth``."""
    return answer is not None and equivalent(answer, truth)


def group(answers: Sequence[str], timeout: Timeout = LONGEST_SECONDS) -> list[int]:
    """A group id for each answer: 0, 1, ... in the order in which the groups appear.

    Equal answers are in one group, and so are answers that are linked by others: 50 and 0.5 by 50%. The groups
    do not depend on the order of the answers. ``timeout`` bounds the time of all formulas together.
    """
    readings = [_read(answer) for answer in answers]
    distinct = list({reading.key: reading for reading in readings}.values())
    groups = _Groups(len(distinct))
    _link_quantities([(i, r.quantity) for i, r in enumerate(distinct) if r.quantity], groups.link)
    left = countdown(timeout)
    slow = [i for i, reading in enumerate(distinct) if reading.items or not reading.quantity]
    for i in slow:
        for j, other in enumerate(distinct):
            if groups.root(i) != groups.root(j) and _equal(distinct[i], other, left):
                groups.link(i, j)
    root = {reading.key: groups.root(i) for i, reading in enumerate(distinct)}
    number: dict[int, int] = {}
    return [number.setdefault(root[reading.key], len(number)) for reading in readings]


class _Groups:
    """Disjoint sets of the numbers below ``size``."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def link(self, i: int, j: int) -> None:
        self._parent[self.root(i)] = self.root(j)


def _link_quantities(quantities: Iterable[tuple[int, Quantity]], link: Callable[[int, int], None]) -> None:
    """Link all quantities that are equal, without comparing each with each.

    Closeness has no gaps: whatever lies between two close values is close to both. So it is enough to compare
    neighbours of the same unit, and each quantity that has a unit with its two neighbours among those without.
    """
    lines: dict[tuple[str, str], list[tuple[Fraction, int]]] = defaultdict(list)
    for index, quantity in quantities:
        lines[quantity.family, quantity.unit].append((quantity.value, index))
    for (family, unit), line in lines.items():
        line.sort()
        for (low, i), (high, j) in pairwise(line):
            if close(low, high):
                link(i, j)
        bare = sorted(lines.get((family, ""), [])) if unit else []
        for value, i in line:
            for meant in (value, value / 100) if unit == PERCENT else (value,):
                at = bisect_left(bare, (meant, -1))
                for other, j in bare[max(0, at - 1) : at + 1]:
                    if close(meant, other):
                        link(i, j)


def _equal(a: _Reading, b: _Reading, timeout: Timeout) -> bool:
    known = _plainly(a, b)
    if known is not None or a.formula is None or b.formula is None:
        return bool(known)
    return CHECKER.equal(a.formula, b.formula, timeout)


def _plainly(a: _Reading, b: _Reading) -> bool | None:
    """Whether two answers are equal, or None where only math-verify can tell."""
    if a.key == b.key:
        return True
    if a.quantity and b.quantity:
        return same_quantity(a.quantity, b.quantity)
    if a.items and b.items:
        if a.ordered == b.ordered and len(a.items) == len(b.items) and _same_items(a, b):
            return True
        if all(item.quantity for item in (*a.items, *b.items)):
            return False
    return None


def _same_items(a: _Reading, b: _Reading) -> bool:
    if a.ordered:
        return all(_plainly(x, y) for x, y in zip(a.items, b.items, strict=True))
    left = list(b.items)
    for item in a.items:
        match = next((other for other in left if _plainly(item, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


@lru_cache(_REMEMBERED)
def _read(answer: str) -> _Reading:
    return _read_normalised(normalise(answer))


def _read_normalised(text: str) -> _Reading:
    if choice := _CHOICE.fullmatch(text):
        letter = choice[1]
        return _Reading(letter.lower() if letter.lower() in _CHOICES else letter)
    if len(text) > MAX_FORMULA_CHARS:
        return _Reading(text.casefold() if _is_wordy(text) else text)
    if quantity := read_quantity(text):
        return _Reading(text.casefold(), quantity, formula=_as_formula(quantity))
    wordy = _is_wordy(text)
    key = text.casefold() if wordy else without_spaces(text)
    items, ordered = _items(text)
    is_formula = not wordy and (items or _FORMULA_MARK.search(text))
    return _Reading(key, None, items, ordered, text if is_formula else None)


def _as_formula(quantity: Quantity) -> str | None:
    """The value as LaTeX, and a unit that may be meant as a symbol: ``5 x``."""
    if quantity.family or len(quantity.unit) > 1 or quantity.unit in UNITS:
        return None
    value = quantity.value
    text = f"\\frac{{{value.numerator}}}{{{value.denominator}}} {quantity.unit}".strip()
    return text if len(text) <= MAX_FORMULA_CHARS else None


def _items(text: str) -> tuple[tuple[_Reading, ...], bool]:
    """The items of a list, none where ``text`` is not a list, and whether their order matters."""
    opening, inside = "", text
    if (bracketed := _BRACKETED.fullmatch(text)) and not re.search(r"[()\[\]{}]", bracketed[2]):
        opening, inside = bracketed[1], bracketed[2]
    parts = [part.strip() for part in _split(_JOIN.sub(",", inside))]
    if len(parts) < 2 or not all(parts):
        return (), False
    ordered = opening == "(" or (opening == "[" and len(parts) == 2)  # a point or an interval
    return tuple(_read_normalised(normalise(part)) for part in parts), ordered


def _split(text: str) -> list[str]:
    """``text`` at its commas and semicolons outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _is_wordy(text: str) -> bool:
    """Whether ``text`` is words, whose case does not matter, rather than symbols, whose case does.

    Words are kept from math-verify, which would read them as products of symbols ("east" as "seat").
    """
    return _WORD.search(_COMMAND.sub(" ", text)) is not None
