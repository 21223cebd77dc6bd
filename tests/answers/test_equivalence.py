from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from itertools import permutations
from pathlib import Path

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


def documented(heading: str) -> list[tuple[str, str]]:
    """The pairs of answers in the table below ``heading`` of docs/answers.md."""
    text = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    table = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \| `(.+?)` \|", table, re.MULTILINE)


@pytest.mark.parametrize(("a", "b"), documented("Equal"))
def test_documented_as_equal_at_once(a: str, b: str) -> None:
    assert equivalent(a, b, timeout=0)
    assert equivalent(b, a, timeout=0)


@pytest.mark.parametrize(("a", "b"), documented("Equal by math-verify"))
def test_documented_as_equal_by_math_verify(patient: None, a: str, b: str) -> None:
    assert equivalent(a, b, 300.0)
    assert equivalent(b, a, 300.0)


@pytest.mark.parametrize(("a", "b"), documented("Not equal"))
def test_documented_as_different(patient: None, a: str, b: str) -> None:
    assert not equivalent(a, b, 300.0)
    assert not equivalent(b, a, 300.0)


def test_groups_link_what_equal_pairs_link() -> None:
    assert group(["50", "0.5", "7"], timeout=0) == [0, 1, 2]
    for order in permutations(["50%", "50", "0.5"]):
        assert group([*order, "7"], timeout=0) == [0, 0, 0, 1]
    for order in permutations(["B", "b", "(B)"]):
        assert group(order, timeout=0) == [0, 0, 0]


def test_a_thousand_different_numbers_are_grouped_quickly() -> None:
    answers = [f"{i % 997}.{i}" for i in range(2000)]
    began = time.process_time()
    assert group(answers, timeout=0) == list(range(2000))
    assert time.process_time() - began < 3


def test_threads_compute_a_slow_pair_once_and_plain_pairs_do_not_wait(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = formulas.FormulaChecker()
    monkeypatch.setattr("edge_tts.answers.equivalence.CHECKER", checker)
    assert checker.equal("x+1", "1+x", 300.0)
    monkeypatch.setattr(formulas, "FORMULA_SECONDS", 0.5)
    asked = []
    ask = checker._ask
    monkeypatch.setattr(checker, "_ask", lambda pair, left: asked.append(pair) or ask(pair, left))
    slow = [(f"3^{{7^{{7^{top}}}}}", "2^{x}") for top in (7, 8, 9)]
    threads = [threading.Thread(target=equivalent, args=(*slow[i % 3], 300.0)) for i in range(16)]
    for thread in threads:
        thread.start()
    while not asked:
        time.sleep(0.01)
    began = time.monotonic()
    assert equivalent("18 eggs", "18.0")
    assert equivalent(r"\frac{3}{4}", "0.75")
    assert equivalent("x+1", "1+x"), "decided before"
    waited = time.monotonic() - began
    for thread in threads:
        thread.join()
    checker.close()
    assert len(asked) == len(set(asked)) == 3, "a pair was computed twice"
    assert waited < 0.4
