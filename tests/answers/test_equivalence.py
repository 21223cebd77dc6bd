from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from edge_tts.answers import formulas
from edge_tts.answers.equivalence import equivalent, group, is_correct


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow machines get the time they need."""
    monkeypatch.setattr(formulas, "FORMULA_SECONDS", 300.0)


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
def test_formulas_in_a_thread_of_their_own(patient: None, a: str, b: str) -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(equivalent(a, b, 300.0)))
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize(
    "text",
    ["", "\\", "$", "{}{}", "\\frac{", "\x00\xff", "9^{9^{9^9}}", "(" * 150, "\ud800", "%", "1e999", "1/0", "1" * 5000],
)
def test_garbage_is_unequal_to_all_but_itself(text: str) -> None:
    assert not equivalent(text, "7+x")
    assert equivalent(text, text)


def test_a_formula_that_takes_too_long_is_given_up_once(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    checker = formulas.FormulaChecker()
    assert checker.equal("x+1", "1+x", 300.0)
    monkeypatch.setattr(formulas, "FORMULA_SECONDS", 0.5)
    endless = "3^{7^{7^{7}}}", "2"
    began = time.monotonic()
    assert not checker.equal(*endless, 300.0)
    assert time.monotonic() - began < 60, "it was left to compute"
    began = time.monotonic()
    assert not checker.equal(*endless, 300.0)
    assert time.monotonic() - began < 0.4, "it was tried again"
    monkeypatch.setattr(formulas, "FORMULA_SECONDS", 300.0)
    assert checker.equal("x+2", "2+x", 300.0), "the next pair gets a new process"
    checker.close()


def test_no_time_means_no_wait(patient: None) -> None:
    checker = formulas.FormulaChecker()
    assert not checker.equal("x+1", "1+x", 0.0)
    assert not checker.equal("x+1", "1+x", 0.01)  # starts a process, and does not wait for it
    assert checker.equal("x+1", "1+x", 300.0)
    checker.close()
    assert checker.equal("x+1", "1+x", 0.0), "decided before"
    assert checker.equal("x+y", "y+x", 300.0), "a closed checker starts again"
    checker.close()


def test_a_wait_ends_when_a_function_says_so(patient: None) -> None:
    checker = formulas.FormulaChecker()
    assert checker.equal("x+1", "1+x", 300.0)
    wanted = threading.Event()
    threading.Timer(0.2, wanted.set).start()
    assert not checker.equal("3^{7^{7^{7}}}", "2", lambda: 0.0 if wanted.is_set() else 300.0)
    assert wanted.is_set()
    assert checker.equal("x+2", "2+x", 300.0), "what was not decided does not stand in the way"
    checker.close()


def test_a_process_that_died_is_replaced(patient: None) -> None:
    checker = formulas.FormulaChecker()
    assert checker.equal("x+1", "1+x", 300.0)
    child = checker._child
    assert child is not None
    child.kill()
    assert checker.equal("x+3", "3+x", 300.0)
    checker.close()


def test_group_numbers_classes_by_first_appearance(patient: None) -> None:
    assert group(["4", "5", "4.0", "$5", "seven", "SEVEN", "8/2"]) == [0, 1, 0, 1, 2, 2, 0]
    assert group([]) == []
    assert group([r"\sqrt{8}", r"2\sqrt{2}"], timeout=300) == [0, 0]
    assert group([r"\sqrt{18}", r"3\sqrt{2}"], timeout=0) == [0, 1]


def test_is_correct() -> None:
    assert is_correct("18 eggs", "18")
    assert not is_correct("17", "18")
    assert not is_correct(None, "18")


def test_numbers_load_no_sympy() -> None:
    code = (
        "import sys; from edge_tts.answers.equivalence import group;"
        "assert group(['1', '2', '1.0', '3 eggs', 'no']) == [0, 1, 0, 2, 3];"
        "assert not {'sympy', 'math_verify', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
