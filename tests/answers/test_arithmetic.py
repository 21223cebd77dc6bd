"""Safe arithmetic: exact, bounded, and never a surprise."""

from __future__ import annotations

from fractions import Fraction

import pytest

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.reasoning.prompts import CalculatorFormat


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", Fraction(24)),
        ("0.1+0.2", Fraction(3, 10)),
        ("(3+4)*2", Fraction(14)),
        ("-3+1", Fraction(-2)),
        ("10%*50", Fraction(5)),
        (".5*3", Fraction(3, 2)),
        ("05+3", Fraction(8)),
        ("$1,200*2", Fraction(2400)),
        ("1/3*3", Fraction(1)),
    ],
)
def test_arithmetic_is_exact(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", "1/0", "2**9", "7//2", "__import__('os')", "x+1", "1+", "(" * 50 + "1", "9" * 200, "10**15*10", "1 2", "0x10"],
)
def test_what_is_not_plain_arithmetic_is_left_alone(expression: str) -> None:
    assert evaluate(expression) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(24), "24"),
        (Fraction(3, 2), "1.5"),
        (Fraction(1, 3), "0.33"),
        (Fraction(1, 10000), "0.0001"),
        (Fraction(-7, 2), "-3.5"),
        (Fraction(10**12), "1000000000000"),
    ],
)
def test_numbers_are_written_as_in_the_training_data(value: Fraction, text: str) -> None:
    assert format_number(value) == text


def test_results_are_written_only_where_an_expression_was_opened() -> None:
    lines, marked = CalculatorFormat(), CalculatorFormat("<<", ">>")
    assert lines.written("12*8=") == "96\n"
    assert lines.written("12*8") is None
    assert lines.written("Tom has 12*8=") is None
    assert marked.written("Tom has <<12*8=") == "96>>"
    assert marked.written("Tom has 12*8=") is None
