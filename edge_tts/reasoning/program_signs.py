"""What the lines of a program give away of being right: which numbers of the question it uses, which it makes up, what
it computes and never reads.

Nothing here knows the solution. A wrong program tends to leave a number of the question unused, to compute something
that no later line reads, or to end with half a person. :mod:`edge_tts.runtimes.program_verifier` weighs these signs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
_ASSIGNED = re.compile(r"\s*(\w+)\s*[-+*/]?=(?!=)")
_SPOKEN: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        **{"half": (2, 0.5), "twice": (2,), "double": (2,), "triple": (3,), "thrice": (3,), "quarter": (4, 0.25)},
        **{"dozen": (12,), "one": (1,), "two": (2,), "three": (3,), "four": (4,), "five": (5,), "six": (6,)},
        **{"seven": (7,), "eight": (8,), "nine": (9,), "ten": (10,)},
    }
)
_MOST = 4.0
"""Counts above this say nothing more."""


def is_complete(steps: Sequence[str]) -> bool:
    """Whether the program has computed its ``answer``."""
    return any(re.match(r"\s*answer\s*=(?!=)", step) for step in steps)


def signs(question: str, steps: Sequence[str]) -> dict[str, float]:
    """The signs, by name, of a program written so far: steps with their values, as "left = pencils - 20  # 76"."""
    shown = [(code, value) for code, _, value in (step.partition("  # ") for step in steps)]
    codes = [code for code, _ in shown]
    right = [code.split("=", 1)[-1] for code in codes]
    asked = set(_numbers(question))
    words = re.findall(r"[a-z]+", question.lower())
    spoken = {number for word in words for number in _SPOKEN.get(word, ())}
    written = [number for code in codes for number in _numbers(code)]
    used = set(written) | {100 * number for number in written}  # 20% may be 0.2
    known = asked | spoken | {number / 100 for number in asked} | {1.0, 100.0}
    names = [found[1] for found in map(_ASSIGNED.match, codes) if found]
    unread = sum(not any(_reads(later, name) for later in right[at + 1 :]) for at, name in _places(codes))
    value = _last_number(shown)
    operators = "".join(re.findall(r"[-+*/%]", " ".join(right)))
    goal = set(re.findall(r"[a-z]+", re.split(r"(?<=[.?!])\s+", question.strip())[-1].lower()))
    unused, new = len(asked - used), sum(number not in known for number in written)
    return {
        "lines": float(len(steps)),
        "unused": min(_MOST, unused),
        "some unused": float(unused > 0),
        "new": min(_MOST, new),
        "some new": float(new > 0),
        "unread": min(_MOST, unread),
        "some unread": float(unread > 0),
        "fraction": float(value is not None and not value.is_integer()),
        "negative": float(value is not None and value < 0),
        "copied": float(value in asked),
        "size": math.log1p(abs(value)) if value is not None else 0.0,
        "named": float(min(_MOST, len(set("_".join(names[-2:]).lower().split("_")) & goal))),
        "asked": float(len(asked)),
        "spoken": float(len(spoken)),
        "operators": float(len(operators)),
        **{f"operator {sign}": float(operators.count(sign)) for sign in "+-*/"},
        "branches": float(sum(bool(re.match(r"\s*(?:if|for|while|elif|else)\b", code)) for code in codes)),
        "rounds": float(sum(bool(re.search(r"//|\bint\(|\bround\(|\bceil\(", code)) for code in right)),
        "longest": max((len(code) for code in codes), default=0) / 10,
    }


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text) if len(found) < 40]


def _places(codes: Sequence[str]) -> list[tuple[int, str]]:
    """Where each variable is assigned, the last one left out: nothing can have read it yet."""
    found = [(at, match[1]) for at, match in enumerate(map(_ASSIGNED.match, codes)) if match]
    return found[:-1]


def _reads(code: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", code) is not None


def _last_number(shown: Sequence[tuple[str, str]]) -> float | None:
    """The value of the last line, where it is a number."""
    if not shown:
        return None
    code, value = shown[-1]
    text = (value or code.split("=", 1)[-1]).strip().replace(",", "")
    return float(text) if re.fullmatch(r"-?\d{1,40}(?:\.\d+)?", text) else None
