from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from edge_tts import answers
from edge_tts.answers import equivalent, group, is_correct


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("18", "18"),
        ("18", "18.0"),
        ("18", " 18. "),
        ("$18", "18"),
        ("18$", "18"),
        ("\\$18", "18"),
        ("-$5", "-5"),
        ("1,000", "1000"),
        ("1,234,567.5", "1234567.5"),
        ("1/2", "0.5"),
        ("-3/4", "\u22120.75"),
        ("18 eggs", "18"),
        ("5 dollars", "$5"),
        ("5 hour", "5 hours"),
        ("5kg", "5 kg"),
        ("50%", "50"),
        ("50%", "0.5"),
        ("50\\%", "50%"),
        ("0.333333333", "1/3"),
        ("\\boxed{42}", "42"),
        ("$42$", "42"),
        ("\\text{Evelyn}", "evelyn"),
        ("Monday", "monday"),
    ],
)
def test_equal_without_math_verify(a: str, b: str) -> None:
    assert equivalent(a, b, timeout=0)
    assert equivalent(b, a, timeout=0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("18", "19"),
        ("", "0"),
        ("5 hours", "5 minutes"),
        ("50%", "0.5%"),
        ("5,6", "56"),
        ("1/3", "0.33"),
        ("10000001", "10000002"),
        ("0.0000001", "0.0000002"),
        ("3x", "3"),
        ("2pi", "2"),
        ("72 72", "72"),
        ("east", "seat"),
        ("yes", "no"),
        ("x", "X"),
        ("12 apples and 3 pears", "12"),
    ],
)
def test_unequal(a: str, b: str) -> None:
    assert not equivalent(a, b)
    assert not equivalent(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"$x^2+2x+1$", "(x+1)^2"),
        ("x+1", "1+x"),
        ("(1,2)", "(1, 2)"),
        (r"\boxed{\frac{14}{3}}", r"14/3"),
    ],
)
def test_formulas_in_a_thread_of_their_own(a: str, b: str) -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(equivalent(a, b, 30.0) or equivalent(a, b, 30.0)))
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize(
    "text",
    ["", "\\", "$", "{}{}", "\\frac{", "\x00\xff", "9^{9^{9^9}}", "((9^9)^9)^{9999999}", "99999!", "((9!)!)!", "(" * 150]
    + ["\ud800", "1" * 5000, "%", "1e999", "\\boxed{" * 30, "1/0", "٣"],
)
def test_garbage_is_unequal_and_quick(text: str) -> None:
    began = time.monotonic()
    assert not equivalent(text, "7+x")
    assert equivalent(text, text)
    assert time.monotonic() - began < answers.FORMULA_SECONDS + 3  # the first formula also imports


def test_a_formula_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    equivalent("x+1", "1+x")  # loads math-verify
    monkeypatch.setattr(answers, "FORMULA_SECONDS", 0.3)
    threads = threading.active_count()
    began = time.monotonic()
    assert not equivalent("(x+1)^{900}(x+3)^{700}", "(x+2)^{800}(x+5)^{800}-1")
    assert time.monotonic() - began < 1.5
    while threading.active_count() > threads and time.monotonic() - began < 20:
        time.sleep(0.05)
    assert threading.active_count() == threads, "the abandoned comparison still runs"
    began = time.monotonic()
    assert not equivalent("(x+1)^{900}(x+3)^{700}", "(x+2)^{800}(x+5)^{800}-1")
    assert time.monotonic() - began < 0.1, "a pair that was given up is not tried again"


def test_group_numbers_classes_by_first_appearance() -> None:
    assert group(["4", "5", "4.0", "$5", "seven", "SEVEN", "8/2"]) == [0, 1, 0, 1, 2, 2, 0]
    assert group([]) == []
    assert group([r"\sqrt{8}", r"2\sqrt{2}"], timeout=30) == [0, 0]
    assert group([r"\sqrt{18}", r"3\sqrt{2}"], timeout=0) == [0, 1]


def test_is_correct() -> None:
    assert is_correct("18 eggs", "18")
    assert not is_correct("17", "18")
    assert not is_correct(None, "18")


def test_numbers_load_no_sympy() -> None:
    code = (
        "import sys; from edge_tts.answers import group; assert group(['1', '2', '1.0', '3 eggs', 'no']) == [0,1,0,2,3];"
        "assert not {'sympy', 'math_verify', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
