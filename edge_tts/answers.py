"""Whether two answers mean the same: exact arithmetic for numbers, math-verify for the rest.

Plain numbers, with currency signs, thousands commas, percent signs or a trailing unit, are compared
as fractions without loading anything. Only texts that look like formulas load math-verify (and with
it sympy, more than a second and some 50 MiB), and only for a bounded time.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import time
from collections.abc import Sequence
from fractions import Fraction

from edge_tts.calculator import evaluate

FORMULA_SECONDS = 2.0
"""Longest wait for the comparison of one pair of formulas; a pair not decided by then is unequal."""
GROUP_SECONDS = 5.0
"""Longest time one ``group`` spends on formulas unless told otherwise."""
MAX_FORMULA_CHARS = 200

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
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(-?\d+))")

_decided: dict[tuple[str, str], bool] = {}
_MAX_DECIDED = 4096


def equivalent(a: str, b: str, timeout: float = FORMULA_SECONDS) -> bool:
    """Whether ``a`` and ``b`` state the same answer. Never raises, on any text and in any thread.

    A unit or percent sign that only one side has is ignored ("18 eggs" is "18", "50%" is "50" and
    is "0.5"); different units make different answers. ``timeout`` bounds, in seconds, the slow path
    for formulas; with 0 only numbers and equal texts are equivalent.
    """
    a, b = _normalise(a), _normalise(b)
    if a == b:
        return True
    number_a, number_b = _number(a), _number(b)
    if number_a and number_b:
        return _same_number(number_a, number_b)
    if a.casefold() == b.casefold():
        return _is_wordy(a)
    return _is_formula(a) and _is_formula(b) and _same_formula(a, b, min(timeout, FORMULA_SECONDS))


def group(answers: Sequence[str], timeout: float = GROUP_SECONDS) -> list[int]:
    """A group id for each answer: 0, 1, ... in the order in which the groups appear.

    Every answer is compared with the first member of each group; ``timeout`` bounds, in seconds,
    the time all the formulas among them may take together.
    """
    representatives: list[str] = []
    ids: list[int] = []
    ends = time.monotonic() + timeout
    for answer in answers:
        for index, representative in enumerate(representatives):
            if equivalent(representative, answer, max(0.0, ends - time.monotonic())):
                ids.append(index)
                break
        else:
            ids.append(len(representatives))
            representatives.append(answer)
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
    """Whether math-verify may be asked: a short formula without words or huge powers.

    Words are kept away because they would be read as products of symbols ("east" as "seat").
    """
    if not text or len(text) > MAX_FORMULA_CHARS or _is_wordy(text):
        return False
    return (_number(text) is not None or _FORMULA_MARK.search(text) is not None) and not _is_huge(text)


def _is_huge(text: str) -> bool:
    """Whether powers or factorials may give integers too long to compute.

    One such product is a single uninterruptible operation of the interpreter, so it is refused up front.
    """
    if text.count("!") > 1 or ("!" in text and re.search(r"\d{4,}", text)):
        return True
    product = 1
    powers = list(_EXPONENT.finditer(text))
    for match in powers:
        exponent = match[1] or match[2] or match[3] or ""
        numbers = [int(digits) for digits in re.findall(r"\d+", exponent)]
        product *= max(1, *numbers, 1)
    return product > 10_000 or text.count("^") + text.count("**") > len(powers)


def _same_formula(a: str, b: str, timeout: float) -> bool:
    pair = (a, b) if a <= b else (b, a)
    if pair in _decided:
        return _decided[pair]
    if timeout <= 0:
        return False
    verdict = _verify(*pair, timeout)
    if verdict is None and timeout < FORMULA_SECONDS:
        return False  # not a verdict: there may be more time when it is asked again
    if len(_decided) >= _MAX_DECIDED:
        _decided.clear()
    _decided[pair] = bool(verdict)
    return bool(verdict)


def _verify(a: str, b: str, timeout: float) -> bool | None:
    """math-verify's verdict, or None where it gives none within ``timeout`` seconds.

    Its own timeout is a signal, which only a main thread can receive, so it runs in a daemon thread
    that is interrupted instead; not while it imports, which would leave half-initialised modules.
    """
    verdict: list[bool] = []
    loaded, abandoned = threading.Event(), threading.Event()

    def work() -> None:
        try:
            from math_verify import LatexExtractionConfig, parse, verify

            logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeout is off
            loaded.set()
            if abandoned.is_set():
                return
            left, right = (parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None) for text in (a, b))
            verdict.append(verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None))
        except Exception:  # whatever sympy and its parser raise on garbage means "not shown to be equal"
            verdict.append(False)
        except SystemExit:
            pass  # abandoned

    thread = threading.Thread(target=work, name="math-verify", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        abandoned.set()
        if loaded.is_set():
            # SystemExit passes every "except Exception" on its way out of sympy.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    return verdict[0] if verdict else None
