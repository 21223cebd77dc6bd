"""Equations in prose: which are judged, which hold, and that wrong ones are found."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tts.reasoning.arithmetic_check import Equation, equations, false_equations


def judged(step: str) -> list[bool]:
    return [equation.holds for equation in equations(step)]


@pytest.mark.parametrize(
    "step",
    [
        "12 * 8 = 96",
        r"So $5 \times 3 = 15$ apples.",
        r"\[ 48 \div 2 = 24 \]",
        r"Half of them is \frac{10}{4} = 2.5 pounds.",
        r"\$15 + \$20 = \$35",
        r"12 + 13 = \boxed{25}",
        r"12*8 = 96 \text{ apples}",
        "20% of 50 is 10.",
        "50% of 80 = 40",
        "24/30 = 80%",
        "24/30 * 100 = 80%",
        "168 / 20% = 840",
        "- 12 * 8 = 96",
        "1. 3 + 4 = 7",
        "Week 2 - 5 * 3 = 15",
        "1,200 + 300 = 1,500.",
        "5 x 3 = 15",
        "(12 * 8 = 96)",
        "3 + 4 = 7 (since 3 come first)",
        "100 / 3 = 33.33",
        "2 / 3 = 0.66",
        "100 / 3 ≈ 33",
        "$2.50 - $2.24 = 26 cents",
        "x = 5 * 3 = 15",
    ],
)
def test_an_equation_that_holds_as_it_is_written_holds(step: str) -> None:
    assert judged(step) == [True]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("Total: 12 * 8 = 95 pencils", "12 * 8 = 95"),
        ("20% of 50 is 12.", "20% * 50 = 12"),
        (r"He has **5 \times 5 = 26** now", "5 * 5 = 26"),
        ("0.5 * 3 = 1.6", "0.5 * 3 = 1.6"),
        ("$12 * $3 = $37", "$12 * $3 = $37"),
        (r"12 + 13 = \boxed{26}", "12 + 13 = 26"),
        ("100 / 3 = 34", "100 / 3 = 34"),
        ("= 5 + 2 = 8", "5 + 2 = 8"),
    ],
)
def test_a_false_equation_is_found(step: str, text: str) -> None:
    assert [equation.text for equation in false_equations(step)] == [text]


@pytest.mark.parametrize(
    "step",
    [
        "2x + 3 = 7",
        "a * 2 + 3 = 9",
        "5! = 121",
        "2^3 = 9",
        "12 pencils * 3 = 35",
        "2 + 3 = 8 - x",
        "2 + 4 = 2(x + 1)",
        "2 * 3 = 7 million",
        "3 + 5 = 9:00",
        "5 == 2 + 4",
        "60 minutes x 3/4 = 45 minutes",
        "12 x 1 and 1/4 = 15",
        "1 / 0 = 5",
        "no numbers = none",
    ],
)
def test_what_is_not_surely_an_equation_of_numbers_is_left_alone(step: str) -> None:
    assert judged(step) == []


def test_a_chain_is_judged_sign_by_sign_and_may_be_written_loosely() -> None:
    assert judged("12 * 8 = 96 - 20 = 76") == [True, True]
    assert judged("2 + 3 = 5 * 4 = 20") == [True, True]
    assert judged("2 + 3 = 6 * 4 = 24") == [False, True]
    assert judged("2 + 3 = 5\n4 + 4 = 9") == [True, False]


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from("+-*/"))
def test_the_value_is_exact_and_another_result_is_false(a: int, b: int, operator: str) -> None:
    value = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b)}[operator]
    (equation,) = equations(f"{a} {operator} {b} = {int(value) + 2}")
    assert equation == Equation(f"{a} {operator} {b} = {int(value) + 2}", value, False)
    assert judged(f"{a} {operator} {b} = {float(value):.3f}") == [True]


@given(st.text(st.sampled_from("0123456789.,+-*/()$%= x≈\\{}frac^!\n") | st.characters(), max_size=200))
def test_no_text_raises(step: str) -> None:
    equations(step)


@pytest.mark.parametrize(
    "part", ["1+", "=", "(", "1 ", "\\frac{", "**", " ", "9*9=1\n", "1=1", "1%", "1 is 1 ", "\\boxed{1}", "$"]
)
def test_time_is_bounded_for_long_texts(part: str) -> None:
    begin = time.process_time()
    equations(part * (100_000 // len(part)))
    assert time.process_time() - begin < 2
