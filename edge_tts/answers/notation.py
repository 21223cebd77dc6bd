"""One spelling for answers: digits of any script, LaTeX and plain text become the same text.

``normalise`` changes how an answer is written, never what it says. Values and units are read elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

MAX_ANSWER_CHARS = 2000
"""Longer answers are only compared as text."""

_SYMBOLS = {
    "\u2212": "-", "\u2012": "-", "\u2013": "-", "\ufe63": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/",
    "\u2044": "/", "π": "\\pi ", "±": "\\pm ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "√": "√",
    "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u3000": " ",
    "￥": "¥", "￡": "£",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")

_Replacement = str | Callable[[re.Match[str]], str]
_LATEX: tuple[tuple[str, _Replacement], ...] = (
    (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}"),
    (r"\\[!,]|\{,\}(?=\d)", lambda found: "," if found[0] == "{,}" else ""),
    (r"\\[;: ]|~|\\q?quad(?![A-Za-z])", " "),
    (r"\\([$%#&])", r"\1"),
    (r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:cdot|times)(?![A-Za-z])", "*"),
    (r"\\div(?![A-Za-z])", "/"),
    (r"\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z])", "°"),
    (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
)
"""LaTeX that looks different and means the same."""

_FORMULAS: tuple[tuple[str, _Replacement], ...] = (
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"√\s*\(([^()]*)\)|√\s*(\d+|[A-Za-z])", lambda found: f"\\sqrt{{{found[1] or found[2]}}}"),
    (r"(?<![A-Za-z])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
    (r"(?<![A-Za-z\\])(pi|sin|cos|tan|cot|sec|csc|log|ln|exp)(?![A-Za-z])", r"\\\1"),
    (r"\*\*", "^"),
    (r"\^\s*(-?\d+|[A-Za-z])", r"^{\1}"),
)
"""Formulas typed on a keyboard, as LaTeX."""

_WRAPPERS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (r"\$+([^$]*)\$+", r"\\\((.*)\\\)", r"\\\[(.*)\\\]", r"\\boxed\s*\{(.*)\}", r'"([^"]*)"')
)
_ASSIGNED = re.compile(r"[A-Za-z]\s*=\s*(?=[^=])")


def normalise(answer: str) -> str:
    """``answer`` in the common spelling, without math delimiters, ``x =`` in front and punctuation at the end."""
    if len(answer) > MAX_ANSWER_CHARS:
        return " ".join(answer.split())
    text = "".join(_plain_character(character) for character in answer)
    text = _unwrapped(" ".join(text.split()))
    for pattern, replacement in _LATEX:
        text = re.sub(pattern, replacement, text)
    text = _unwrapped(" ".join(text.split()))
    text = _ASSIGNED.sub("", text, count=1) if _ASSIGNED.match(text) else text
    for pattern, replacement in _FORMULAS:
        text = re.sub(pattern, replacement, text)
    return " ".join(text.split())


def without_spaces(text: str) -> str:
    """``text`` without spaces, except where one ends a LaTeX command or a number."""
    return re.sub(r"(\\[A-Za-z]+ (?=[A-Za-z])|\d (?=[\d.]))| ", r"\1", text)


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
        return chr(ord(character) - 0xFEE0)
    if unicodedata.decomposition(character).startswith("<fraction>"):  # "½" is "1/2", and "2½" is "2 1/2"
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return character


def _unwrapped(text: str) -> str:
    """``text`` without the delimiters around all of it, and without punctuation at its end."""
    while True:
        before = text
        text = text.strip().rstrip(".,;:").rstrip()
        for wrapper in _WRAPPERS:
            if (match := wrapper.fullmatch(text)) and _is_balanced(match[1]):
                text = match[1].strip()
        if text == before:
            return text


def _is_balanced(text: str) -> bool:
    """Whether no brace closes before it opens: ``1} and \\boxed{2`` is not the content of one box."""
    depth = 0
    for brace in re.findall(r"\\?[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return True
