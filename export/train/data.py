"""GSM8K solutions as short equation steps, the validation split, and revision chains."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.export.trace_rows import read_lines

VALIDATION_MODULUS = 15
"""Problem ids whose number is divisible by this are held out for validation (about 500 of 7473)."""

ANNOTATION = re.compile(r"<<([^<>]*)>>")
OPERATOR = re.compile(r"(?<=[\d)])[+\-*/](?=[\d(.])")
NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")


@dataclass(frozen=True)
class Problem:
    """A question with its final answer and, for training data, its equation steps."""

    id: str
    question: str
    answer: str
    steps: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        return int(self.id.rsplit("-", 1)[1]) % VALIDATION_MODULUS == 0


class _Line(msgspec.Struct):
    """A line of a file of problems."""

    id: Annotated[str, msgspec.Meta(pattern=r"-\d+$")]
    """Ends in a number, which decides whether the problem is held out."""
    question: str
    answer: str
    solution: str = ""


def read_problems(path: Path) -> Iterator[Problem]:
    """The problems of a JSON-lines file; ``steps`` is empty where the solution has no clean chain of equations.

    Raises InputError, with the line, for one that is no problem.
    """
    for _, line in read_lines(path, _Line, "a problem"):
        answer = normalise(line.answer)
        yield Problem(line.id, line.question.strip(), answer, equation_steps(line.solution, answer))


def normalise(answer: str) -> str:
    """A numeric answer as the calculator writes it; other text is only stripped."""
    value = evaluate(answer)
    return answer.strip() if value is None else format_number(value)


def equation_steps(solution: str, answer: str) -> tuple[str, ...]:
    """Turn calculator annotations into ``expression=result`` steps.

    Results are recomputed. The chain is kept only if every annotated result agrees with its
    recomputation and the last one is the answer; otherwise the empty tuple is returned.
    """
    steps: list[str] = []
    for annotation in ANNOTATION.findall(solution):
        expression, _, written = annotation.replace(" ", "").rpartition("=")
        value, claimed = evaluate(expression), evaluate(written)
        if value is None or claimed is None or abs(value - claimed) > abs(value) / 100:
            return ()
        plain = expression.replace(",", "").replace("$", "")
        if not OPERATOR.search(plain):
            continue  # a bare "5=5" teaches nothing
        steps.append(f"{plain}={format_number(value)}")
    if not steps or steps[-1].rpartition("=")[2] != answer:
        return ()
    return tuple(steps)


def completion(steps: Sequence[str], answer: str) -> str:
    """The text a policy is trained to write after the prompt: one step a line, then the answer."""
    return "\n".join([*steps, f"#### {answer}"])


def corrupt(steps: Sequence[str], question: str, rng: random.Random) -> tuple[str, ...]:
    """A plausible wrong attempt: one step is dropped, or one operator or operand changed.

    It stands in for the policy's own wrong attempts before there is a policy. Later results are not recomputed, so the
    mistake stays in one place.
    """
    attempt = list(steps)
    at = rng.randrange(len(attempt))
    kind = rng.choice(("drop", "operator", "operand")) if len(attempt) > 1 else rng.choice(("operator", "operand"))
    if kind == "drop":
        del attempt[at]
        return tuple(attempt)
    expression = attempt[at].rpartition("=")[0]
    pattern = OPERATOR if kind == "operator" else NUMBER
    spans = list(pattern.finditer(expression))
    span = rng.choice(spans)
    pool = "+-*/" if kind == "operator" else NUMBER.findall(question) or ["2"]
    new = expression[: span.start()] + rng.choice(pool) + expression[span.end() :]
    value = evaluate(new)
    if value is None:
        return tuple(attempt[:at] + attempt[at + 1 :]) or tuple(steps)
    attempt[at] = f"{new}={format_number(value)}"
    return tuple(attempt)


def wrong_attempts(problem: Problem, count: int, rng: random.Random) -> list[str]:
    """Up to ``count`` distinct completions of ``problem`` that end in a wrong answer."""
    found: list[str] = []
    for _ in range(6 * count):
        if len(found) == count:
            break
        steps = corrupt(problem.steps, problem.question, rng)
        answer = steps[-1].rpartition("=")[2]
        text = completion(steps, answer)
        if answer != problem.answer and text not in found:
            found.append(text)
    return found


def split(problems: Iterable[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Return (training problems with clean steps, all held-out problems)."""
    train: list[Problem] = []
    held_out: list[Problem] = []
    for problem in problems:
        if problem.held_out:
            held_out.append(problem)
        elif problem.steps:
            train.append(problem)
    return train, held_out
