"""Redrawn problems and what an epoch is made of."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.export.train.augment import redraw
from edge_tts.export.train.data import NUMBER, Problem, completion
from edge_tts.export.train.examples import Samples, attempts, epoch, read_samples

PENCILS = Problem(
    "t-1", "Tom has 12 boxes of 8 pencils. He gives away 20 pencils. How many are left?", "76", ("12*8=96", "96-20=76")
)
SALE = Problem(
    "t-2",
    "A $1,200 television is 25% off. A cable costs $12.50 and Ann buys two. What does Ann pay?",
    "925",
    ("1200*.75=900", "2*12.5=25", "900+25=925"),
)
SHARES = Problem("t-3", "A cake has 24 pieces for three girls. How many does each get?", "8", ("24/3=8",))


def redrawn(problem: Problem, count: int = 40) -> list[Problem]:
    rng = random.Random(0)
    found = [redraw(problem, rng) for _ in range(count)]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("problem", [PENCILS, SALE, SHARES])
def test_redrawn_solutions_are_right_and_use_the_new_numbers(problem: Problem) -> None:
    new = redrawn(problem)
    assert len({each.question for each in new}) > 2
    for each in new:
        assert each.id == problem.id
        assert each.question != problem.question
        known = {float(n.replace(",", "")) for n in NUMBER.findall(each.question.replace(",", ""))}
        known |= {i + 2.0 for i, w in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
                                                 "eleven", "twelve")) if w in each.question}  # fmt: skip
        known |= {1 - n / 100 for n in known}
        for step in each.steps:
            expression, _, result = step.rpartition("=")
            value = evaluate(expression)
            assert value is not None
            assert value > 0
            assert format_number(value) == result
            assert {float(n) for n in NUMBER.findall(expression)} <= {round(n, 4) for n in known}
            known.add(float(result))
        assert each.answer == each.steps[-1].rpartition("=")[2]


def test_whole_numbers_stay_whole_and_prices_keep_their_cents() -> None:
    assert all("." not in each.answer for each in redrawn(SHARES))
    for each in redrawn(SALE):
        price = each.question.split("cable costs $")[1].split(" ")[0]
        assert len(price.split(".")[1]) == 2
        assert 1000 > int(each.question.split("%")[0].rsplit(" ", 1)[1]) > 0


def test_numbers_that_mean_something_else_are_left_alone() -> None:
    clock = Problem("t", "From 7:30 Tom reads 30 pages, as on the 5th of May 2019. And 20 more?", "50", ("30+20=50",))
    for each in redrawn(clock):
        assert "7:30" in each.question
        assert "5th of May 2019" in each.question


def test_an_operand_with_two_possible_sources_is_only_redrawn_where_both_agree() -> None:
    # Is the 4 of the second step the question's or the first result? Only redraws that leave it open are kept.
    twin = Problem("t", "Ann has 12 pens and gives away 8. Bob has 4 pens. Together?", "8", ("12-8=4", "4+4=8"))
    for each in redrawn(twin):
        a, b, c = (int(n) for n in NUMBER.findall(each.question))
        assert a - b == c


def test_half_and_dozen_stay_what_they_are() -> None:
    dozen = Problem("t", "Ann has 12 dozen eggs. How many?", "144", ("12*12=144",))
    assert redrawn(dozen) == []


def rollouts(path: Path, *rows: tuple[str, tuple[str, ...], str, bool]) -> Path:
    lines = [
        {
            "id": id,
            "question": "q",
            "steps": [*steps, f"#### {answer}"],
            "labels": [0.5] * (len(steps) + 1),
            "answer": answer,
            "correct": correct,
        }
        for id, steps, answer, correct in rows
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_samples_add_distinct_right_solutions_and_wrong_attempts(tmp_path: Path) -> None:
    file = rollouts(
        tmp_path / "r.jsonl",
        ("t-1", ("12*8=96", "96-20=76"), "76", True),  # the data's own
        ("t-1", ("8*12=96", "96-20=76"), "76", True),
        ("t-1", ("8*12=96", "96-20=76"), "76", True),
        ("t-1", ("96-20", "100-24=76"), "76", True),  # not an equation
        ("t-1", ("12*8=96", "96+20=116"), "116", False),
        ("t-9", ("1+1=2",), "2", True),  # not a training problem
    )
    samples = read_samples([file], [PENCILS])
    assert samples.right == {"t-1": (("8*12=96", "96-20=76"),)}
    assert samples.wrong == {"t-1": ("12*8=96\n96+20=116\n#### 116",)}
    drawn = [problem.steps for _ in range(20) for problem, _ in epoch([PENCILS], samples, 0.0, 0.0, random.Random(_))]
    assert set(drawn) == {PENCILS.steps, ("8*12=96", "96-20=76")}


def test_a_revision_follows_the_policys_own_mistakes_the_nearest_last() -> None:
    near, far = completion(("12*8=96", "96+20=116"), "116"), completion(("1+1=2",), "2")
    others = [completion(("12*8=96", f"96-{n}={96 - n}"), str(96 - n)) for n in (12, 8, 32)]
    samples = Samples({}, {"t-1": (far, near, *others)})
    for seed in range(10):
        before = attempts(PENCILS, samples, 3, random.Random(seed))
        assert len(set(before)) == 3
        assert before[-1] != far
    ((problem, before),) = epoch([PENCILS], samples, 1.0, 1.0, random.Random(0))
    assert problem == PENCILS
    assert 1 <= len(before) <= 4


def test_planted_slips_stand_in_where_nothing_was_sampled() -> None:
    before = attempts(PENCILS, Samples(), 2, random.Random(0))
    assert before
    assert all(not text.endswith("#### 76") for text in before)
