"""The calculator: results of equations that a policy opens in its steps, written by the runtime."""

from __future__ import annotations

from edge_tts.answers.arithmetic import evaluate, format_number


def written_result(step: str, opening: str, closing: str) -> str | None:
    """What a calculator writes after ``step``, or None where it has nothing to say.

    ``step`` must end in "="; the expression is what follows the last ``opening`` (the whole step
    where ``opening`` is empty). The result is followed by ``closing``.
    """
    if not step.endswith("="):
        return None
    _, found, expression = step[:-1].rpartition(opening) if opening else ("", "yes", step[:-1])
    value = evaluate(expression) if found else None
    return None if value is None else format_number(value) + closing
