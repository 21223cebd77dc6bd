"""Whether two answers mean the same: exact arithmetic for numbers, math-verify for the rest.

Plain numbers, with currency signs, thousands commas, percent signs or a trailing unit, are compared
as fractions. Only texts that look like formulas start the process that runs math-verify, and it is
waited for no longer than the caller has time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from edge_tts.answers.arithmetic import evaluate
from edge_tts.answers.formulas import CHECKER, LONGEST_SECONDS, Timeout, countdown

MAX_FORMULA_CHARS = 200

_REMEMBERED = 2**16
"""Pairs of answers whose comparison is remembered."""
_TOLERANCE = Fraction(1, 10**6)
_WRAPPERS = (
    re.compile(r"\$+([^$]*)\$+"),
    re.compile(r"\\\((.*)\\\)"),
    re.compile(r"\\\[(.*)\\\]"),
    re.compile(r"\\boxed\{(.*)\}"),
    re.compile(r"\\text\{([^{}]*)\}"),
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_NUMBER_AND_UNIT = re.compile(r"([^A-Za-z%°]*[\d.)])(\s*)(%|°|[A-Za-z][A-Za-z ./²³]{0,30})?")
_NOT_UNITS = {"e", "i", "pi", "sqrt"}
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}|^[A-Za-z]{2}$")
_FORMULA_MARK = re.compile(r"[\\^_{}()\[\]A-Za-z+*/]")


def equivalent(a: str, b: str, timeout: Timeout = LONGEST_SECONDS) -> bool:
    """Whether ``a`` and ``b`` state the same answer. Never raises, on any text and in any thread.

    A unit or percent sign that only one side has is ignored ("18 eggs" is "18", "50%" is "50" and
    is "0.5"); different units make different answers. ``timeout`` bounds the slow path for formulas;
    with 0 only numbers and equal texts are equivalent.
    """
    known = _plainly(a, b)
    return CHECKER.equal(_normalise(a), _normalise(b), timeout) if known is None else known


@lru_cache(_REMEMBERED)
def _plainly(a: str, b: str) -> bool | None:
    """The same without the slow path: None where formulas have to be compared. Votes ask for the same pairs again
    and again."""
    a, b = _normalise(a), _normalise(b)
    if a == b:
        return True
    number_a, number_b = _number(a), _number(b)
    if number_a and number_b:
        return _same_number(number_a, number_b)
    if a.casefold() == b.casefold():
        return _is_wordy(a)
    return None if _is_formula(a) and _is_formula(b) else False


def group(answers: Sequence[str], timeout: Timeout = LONGEST_SECONDS) -> list[int]:
    """A group id for each answer: 0, 1, ... in the order in which the groups appear.

    Every answer is compared with the first member of each group; ``timeout`` bounds the time all the
    formulas among them may take together.
    """
    representatives: list[str] = []
    ids: list[int] = []
    known: dict[str, int] = {}
    left = countdown(timeout)
    for answer in answers:
        if answer in known:
            ids.append(known[answer])
            continue
        for index, representative in enumerate(representatives):
            if equivalent(representative, answer, left):
                ids.append(index)
                break
        else:
            ids.append(len(representatives))
            representatives.append(answer)
        known[answer] = ids[-1]
    return ids


def is_correct(answer: str | None, truth: str) -> bool:
    """Whether ``answer`` (None where there is none) agrees with ``truth``."""
    return answer is not None and equivalent(answer, truth)


def _normalise(answer: str) -> str:
    """``answer`` without math delimiters, surrounding space and a closing full stop."""
    text = " ".join(answer.split()).replace("\u2212", "-").replace("\\%", "%").replace("\\$", "$").rstrip(".")
    text = text.replace("\\!", "").replace("\\,", "")
    unwrapped = True
    while unwrapped:
        unwrapped = False
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text, unwrapped = match[1].strip(), True
    return text


def _number(text: str) -> tuple[Fraction, str] | None:
    """The value of a plain number and its unit ("" where it has none), or None."""
    text = _THOUSANDS.sub("", re.sub(r"^([-+]?)\s*[$€£¥]\s*", r"\1", text)).removesuffix("$")
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or "," in text:
        return None
    unit = (match[3] or "").casefold().strip(" .")
    # "3x" and "2pi" are formulas, "5 x" and "5kg" are quantities.
    if unit in _NOT_UNITS or (len(unit) == 1 and unit.isalpha() and not match[2]):
        return None
    value = evaluate(match[1])
    return None if value is None else (value, unit.removesuffix("s"))


def _same_number(a: tuple[Fraction, str], b: tuple[Fraction, str]) -> bool:
    (value_a, unit_a), (value_b, unit_b) = a, b
    if unit_a and unit_b and unit_a != unit_b:
        return False
    if unit_a == "%" and not unit_b:
        return _close(value_a, value_b) or _close(value_a / 100, value_b)
    if unit_b == "%" and not unit_a:
        return _close(value_a, value_b) or _close(value_a, value_b / 100)
    return _close(value_a, value_b)


def _close(a: Fraction, b: Fraction) -> bool:
    """Equal, or apart by no more than a decimal expansion cut after six digits is."""
    return abs(a - b) <= _TOLERANCE * min(Fraction(1), max(abs(a), abs(b)))


def _is_wordy(text: str) -> bool:
    """Whether ``text`` is words, whose case does not matter, rather than symbols, whose case does."""
    return _WORD.search(_COMMAND.sub(" ", text)) is not None


def _is_formula(text: str) -> bool:
    """Whether math-verify may be asked: a short formula without words.

    Words are kept away because they would be read as products of symbols ("east" as "seat").
    """
    if not text or len(text) > MAX_FORMULA_CHARS or _is_wordy(text):
        return False
    return _number(text) is not None or _FORMULA_MARK.search(text) is not None
