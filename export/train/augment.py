"""New problems from old ones: draw other numbers for a story and compute its solution again.

Every operand of a solution is linked to the source of its value: a number of the question (for a percentage also its
fraction, the rest to 100% or the sum with 100%), the result of an earlier step, or a constant such as the days of a
week. A redrawn problem is kept only if the possible sources of each operand still agree, if results stay positive, of
similar size and whole where they were whole, and if the numbers of the story keep their order.

    python -m edge_tts.export.train.augment --data gsm8k_train.jsonl --each 2 --out redrawn.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.export import command
from edge_tts.export.train.data import NUMBER, Problem, read_problems, split

TRIES = 30
SPREAD = (0.5, 1.9)
"""A number is redrawn between these multiples of itself."""
RESULT_SPREAD = Fraction(5)
"""A result may grow or shrink by this factor."""

_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_VALUES = {word: Fraction(value) for value, word in enumerate(_WORDS, 2)}
_SLOT = re.compile(
    r"(?<![\w/:.,-])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<percent>%)?(?!\w|[/:]\d|[.,]\d|-\d| ?/)"
    r"|(?<![\w-])(?P<word>" + "|".join(_WORDS) + r")\b(?!-?\s?(?:third|four?th|fif|sixth|half|halve|tenth|hundred))"
)
_WORLD: dict[int, str] = {
    2: "twice|double|half|both|pair|couple|twin",
    3: "triple|thrice|third",
    4: "quarter|quadruple|fourth",
    5: "weekday|fifth",
    7: "week|days",
    10: "dime|tenth|decade",
    12: "dozen|year|month|foot|feet|inch",
    24: "hour|day",
    30: "month",
    52: "year|week",
    60: "minute|hour|second",
    100: "percent|%|dollar|cent|meter|century",
}
"""Constants that a solution may use without a source, if the question has one of these words."""
_STEPS = (1000, 500, 100, 50, 10, 5, 1, Fraction(1, 2), Fraction(1, 4), Fraction(1, 10), Fraction(1, 20))
_PERCENTAGES = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)

Source = Callable[[Mapping[Fraction, Fraction], Sequence[Fraction]], Fraction]
"""Computes an operand's new value from the question's new numbers (by old value) and the results so far."""


@dataclass(frozen=True)
class _Slot:
    """A number written in a question."""

    start: int
    end: int
    value: Fraction
    percent: bool


@dataclass(frozen=True)
class Links:
    """Where the operands of a solution come from; computed once for each problem."""

    slots: tuple[_Slot, ...]
    """Numbers of the question that the solution uses."""
    sources: tuple[tuple[tuple[Source, ...], ...], ...]
    """For each step and operand, the sources that explain its value; a constant has none."""


@lru_cache(maxsize=20_000)
def link(problem: Problem) -> Links | None:
    """Link a problem's operands; None if its solution uses no number that can be redrawn."""
    slots = list(_slots(problem.question))
    used: set[Fraction] = set()
    results: list[Fraction] = []
    steps = []
    for step in problem.steps:
        expression, _, result = step.rpartition("=")
        operands = []
        for match in NUMBER.finditer(expression):
            value = Fraction(match[0])
            sources = [_result(i) for i, known in enumerate(results) if known == value]
            for slot in slots:
                if found := _from_question(slot, value):
                    sources += found
                    used.add(slot.value)
            if sources and _worldly(value, problem.question):
                sources.append(_constant(value))
            operands.append(tuple(sources))
        steps.append(tuple(operands))
        results.append(Fraction(result))
    kept = tuple(slot for slot in slots if slot.value in used)
    return Links(kept, tuple(steps)) if kept else None


def redraw(problem: Problem, rng: random.Random) -> Problem | None:
    """``problem`` with other numbers, or None if no numbers were found that keep its story sensible."""
    links = link(problem)
    if links is None:
        return None
    percent = {slot.value for slot in links.slots if slot.percent}
    words = {slot.value for slot in links.slots if problem.question[slot.start].isalpha()}
    values = sorted({slot.value for slot in links.slots})
    for _ in range(TRIES):
        new = {value: _draw(value, value in percent, value in words, rng) for value in values}
        if new == dict(zip(values, values, strict=True)) or not _ordered(new, percent):
            continue
        steps = _solve(problem.steps, links, new)
        if steps:
            answer = steps[-1].rpartition("=")[2]
            return replace(problem, question=_write(problem.question, links.slots, new), answer=answer, steps=steps)
    return None


def _slots(question: str) -> Iterator[_Slot]:
    for match in _SLOT.finditer(question):
        if match["word"]:
            yield _Slot(match.start("word"), match.end("word"), _VALUES[match["word"]], False)
        elif (value := Fraction(match["digits"].replace(",", ""))) > 1:
            percent = match["percent"] is not None or question[match.end() :].lstrip().startswith("percent")
            yield _Slot(match.start("digits"), match.end("digits"), value, percent)


def _from_question(slot: _Slot, value: Fraction) -> list[Source]:
    """The ways to compute an operand of ``value`` from the number in ``slot``."""
    old = slot.value
    if old == value:
        return [lambda new, _: new[old]]
    if not slot.percent:
        return []
    forms: tuple[Callable[[Fraction], Fraction], ...] = (
        lambda p: p / 100,
        lambda p: 1 - p / 100,
        lambda p: 1 + p / 100,
        lambda p: 100 - p,
    )
    return [lambda new, _, form=form: form(new[old]) for form in forms if form(old) == value]  # type: ignore[misc]


def _result(index: int) -> Source:
    return lambda _, results: results[index]


def _constant(value: Fraction) -> Source:
    return lambda _, results: value


def _worldly(value: Fraction, question: str) -> bool:
    words = _WORLD.get(int(value)) if value.denominator == 1 else None
    return words is not None and re.search(words, question, re.IGNORECASE) is not None


def _draw(value: Fraction, percent: bool, word: bool, rng: random.Random) -> Fraction:
    """Another number of the same kind: as round, with as many decimals, and a word where it was a word."""
    if percent:
        return Fraction(rng.choice(_PERCENTAGES)) if value < 100 else value
    if word:
        return Fraction(rng.randint(2, 12))
    whole = value.denominator == 1
    steps = [s for s in _STEPS if (value / s).denominator == 1 and s < value and (s >= 1 or not whole)]
    step = Fraction(rng.choice(steps or [Fraction(1, 100)]))
    low, high = (round(value * Fraction(bound) / step) for bound in SPREAD)
    drawn = step * rng.randint(max(low, 1), max(high, 1))
    return drawn if drawn > 1 else value


def _ordered(new: Mapping[Fraction, Fraction], percent: set[Fraction]) -> bool:
    """Whether the new numbers, listed by ascending old value, are in the same order as the old ones."""
    amounts = [drawn for old, drawn in new.items() if old not in percent]
    return all(a < b for a, b in pairwise(amounts))


def _solve(steps: Sequence[str], links: Links, new: Mapping[Fraction, Fraction]) -> tuple[str, ...]:
    """The solution with new operands, or () if it would make no sense."""
    results: list[Fraction] = []
    written = []
    for step, sources in zip(steps, links.sources, strict=True):
        expression, _, old_text = step.rpartition("=")
        text, at = "", 0
        for match, candidates in zip(NUMBER.finditer(expression), sources, strict=True):
            values = {source(new, results) for source in candidates} or {Fraction(match[0])}
            if len(values) > 1:
                return ()
            text += expression[at : match.start()] + _exact(values.pop())
            at = match.end()
        text += expression[at:]
        value, old = evaluate(text), Fraction(old_text)
        if value is None or not _sensible(value, old):
            return ()
        results.append(value)
        written.append(f"{text}={format_number(value)}")
    return tuple(written)


def _sensible(value: Fraction, old: Fraction) -> bool:
    if (value > 0) != (old > 0) or value == 0:
        return False
    exact = (value * (1 if old.denominator == 1 else 100)).denominator == 1
    return exact and 1 / RESULT_SPREAD <= value / old <= RESULT_SPREAD


def _exact(value: Fraction) -> str:
    return format_number(value, places=4)


def _write(question: str, slots: Sequence[_Slot], new: Mapping[Fraction, Fraction]) -> str:
    for slot in reversed(slots):
        old, value = question[slot.start : slot.end], new[slot.value]
        if old.isalpha():
            text = _WORDS[int(value) - 2]
        else:
            places = len(old.partition(".")[2])
            text = f"{float(value):,.{places}f}" if "," in old or value >= 10_000 else f"{float(value):.{places}f}"
        question = question[: slot.start] + text + question[slot.end :]
    return question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: id, question, solution, answer")
    parser.add_argument("--each", type=int, default=1, help="new problems wanted from each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    train, _ = split(read_problems(options.data))
    seen: set[str] = set()
    with options.out.open("w", encoding="utf-8") as sink:
        for problem in train:
            for _ in range(options.each):
                new = redraw(problem, rng)
                if new is not None and new.question not in seen:
                    seen.add(new.question)
                    row = {"id": new.id, "question": new.question, "steps": new.steps, "answer": new.answer}
                    sink.write(json.dumps(row) + "\n")
    print(f"{len(seen)} new problems from {len(train)}")


if __name__ == "__main__":
    sys.exit(command.run(main))
