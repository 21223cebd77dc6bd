"""Two tokens after each step that tell a small process reward model where the step's numbers come from.

A model of a few layers would need far more training data than a device's owner has to learn this bookkeeping by
itself. The PRMs this project trains read them; see ``StepLayout.marked``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SOURCE_MARKS = tuple(f"[new{new}unused{unused}]" for new in range(3) for unused in range(4))
RESULT_MARKS = tuple(f"[loose{loose}{kind}]" for loose in range(3) for kind in ("whole", "fraction", "negative"))
MARKS = (*SOURCE_MARKS, *RESULT_MARKS)

_NUMBER = re.compile(r"\d+(?:,\d\d\d)*(?:\.\d+)?|\.\d+")
_WORDS = {
    **{"one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0, "eight": 8.0},
    **{"nine": 9.0, "ten": 10.0, "half": 2.0, "twice": 2.0, "double": 2.0, "thrice": 3.0, "triple": 3.0},
    **{"quarter": 4.0, "dozen": 12.0},
}


def marks(question: str, steps: Sequence[str]) -> tuple[str, str]:
    """The marks of the last of ``steps``: one of ``SOURCE_MARKS``, then one of ``RESULT_MARKS``.

    The source mark counts the step's operands that are neither in the question nor an earlier result ("new"), and
    the numbers of the question that no step has used yet ("unused"). The result mark counts the earlier results that
    no step has used yet ("loose"), and says of what kind the step's own result is.

    A step reads ``expression=result``. In any other text, the answer line included, every number is an operand and
    the last one is also the result.
    """
    written = set(_numbers(question))
    spoken = {_WORDS[word] for word in re.findall(r"[a-z]+", question.lower()) if word in _WORDS}
    used: set[float] = set()
    results: set[float] = set()
    for step in steps:
        earlier = set(results)
        expression, equals, result = step.rpartition("=")
        operands = _numbers(expression if equals else result)
        used.update(operands)
        value = (_numbers(result) or [0.0])[-1]
        if equals:
            results.add(value)
    new = sum(n not in written | spoken | earlier for n in operands)
    kind = "negative" if re.match(r"[#\s$]*-", result) else "whole" if value.is_integer() else "fraction"
    source = f"[new{min(new, 2)}unused{min(len(written - used), 3)}]"
    return source, f"[loose{min(len(earlier - used), 2)}{kind}]"


def _numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in _NUMBER.findall(text)]
