"""The end of ``solve``: what people and scripts read."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from showing import console, result, said

from edge_tts.commands.summary import print_answer, print_cost, print_so_far, print_thinking
from edge_tts.events import BestSoFar, Difficulty, Escalated, StepTaken
from edge_tts.questions.recording import Attempt, Recording

ESCAPES = re.compile(r"\x1b\[([\d;]*)m")
GREEN, RED = "32", "31"


def answered(**fields: object) -> list[str]:
    out = console()
    print_answer(out, console(), result(**fields))  # type: ignore[arg-type]
    return said(out).splitlines()


@pytest.mark.parametrize(
    ("confidence", "line"),
    [
        (0.92, "answer: 76 (about 92% sure)"),
        (0.7, "answer: 76 (likely, about 70%)"),
        (0.55, "answer: 76 (unsure, 55%)"),
        (0.2, "answer: 76 (a guess, 20%)"),
    ],
)
def test_the_answer_is_the_last_line_and_says_how_sure_it_is(confidence: float, line: str) -> None:
    assert answered(confidence=confidence) == ["x = 12 * 8  # 96", "answer = x - 20  # 76", line]


def test_an_answer_of_several_lines_is_one_line_and_control_characters_are_shown() -> None:
    assert answered(answer="a\nb\x1b[2J")[-1] == "answer: a b\N{REPLACEMENT CHARACTER}[2J (about 92% sure)"
    assert (
        answered(steps=("\x1b]0;title\x07", "tab\tstays"))[0]
        == "\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}"
    )


def test_long_lines_and_brackets_stay_as_they_are() -> None:
    step = "[bold]x[/bold] = " + "1 + " * 60 + ":smile:"
    assert answered(steps=(step,))[0] == step


@pytest.mark.parametrize(("confidence", "green"), [(0.95, True), (0.7, False), (0.55, False), (0.2, False)])
def test_only_a_sure_answer_is_green(confidence: float, green: bool) -> None:
    out = console(terminal=True)
    print_answer(out, console(), result(confidence=confidence))
    codes = {code for codes in ESCAPES.findall(said(out).splitlines()[-1]) for code in codes.split(";")}
    assert (GREEN in codes) is green
    assert (RED in codes) is (confidence < 0.5)


def test_an_explanation_comes_before_the_answer() -> None:
    assert answered(explanation="Because.")[-2:] == ["Because.", "answer: 76 (about 92% sure)"]


@pytest.mark.parametrize("text", ["<think>\nHm, \x1b[2J.\n</think>\n\nIt is 76.", "Hm, \x1b[2J.</think>It is 76."])
def test_reasoning_of_the_chosen_text_is_shown_dimmed(text: str) -> None:
    errors = console(terminal=True)
    print_thinking(errors, result(text=text))
    assert said(errors) == "\x1b[2mHm, \N{REPLACEMENT CHARACTER}[2J.\x1b[0m\n"
    errors = console(terminal=True)
    print_thinking(errors, result(text="It is 76."))
    assert said(errors) == ""


def test_it_says_that_a_larger_model_was_asked() -> None:
    errors = console(width=200)
    asked = Escalated("large", "this machine", 10, 20, 3.21, answer_before="75", confidence_before=0.3)
    print_cost(errors, result(escalation=asked), 4, "a-model")
    line = "large (this machine) was asked too: 3.2 s, 30 tokens; before: 75 (a guess, 30%); its answer was taken"
    assert said(errors).splitlines()[0] == f"note: {line}"
    errors = console(width=200)
    print_cost(errors, result(escalation=replace(asked, answer_before=None, kept=False)), 4, "a-model")
    assert "before: no answer; its answer was not taken" in said(errors)


def test_below_the_least_confidence_there_is_no_answer_but_the_votes() -> None:
    out, errors = console(), console()
    print_answer(out, errors, result(confidence=0.4), least=0.5)
    assert said(out).splitlines() == ["not sure", "  76: 80% of the vote", "  54: 20% of the vote"]
    assert said(errors) == "confidence 40% is below the 50% asked for\n"


def test_without_an_answer_the_longest_sample_is_shown() -> None:
    out, errors = console(), console()
    print_answer(out, errors, result(answer=None, confidence=0.0, partial=("I think",)))
    assert (said(out), said(errors)) == ("I think\n", "no answer: no sample reached one; above is the longest\n")
    out, errors = console(), console()
    print_answer(out, errors, result(answer=None, confidence=0.0))
    assert (said(out), said(errors)) == ("", "no answer: no sample reached one\n")


def test_without_an_answer_it_says_by_what_samples_ended() -> None:
    errors = console(width=200)
    attempts = (Attempt(1, error="line 2: name 'x' is not defined"), Attempt(2), Attempt(3, error="line 1: 1 / 0\x1b"))
    print_answer(console(), errors, result(answer=None, confidence=0.0), attempts=attempts)
    assert said(errors).splitlines()[1] == (
        "2 of 3 samples ended on the way; the last: line 1: 1 / 0\N{REPLACEMENT CHARACTER}"
    )


def test_an_interrupted_search_leaves_its_best_answer_or_its_longest_attempt() -> None:
    recording = Recording()
    out, errors = console(), console()
    print_so_far(out, errors, recording)
    assert (said(out), said(errors)) == ("", "")
    recording.take(StepTaken(0, "x = 12", False, ("x = 12",)))
    recording.take(StepTaken(1, "a = 1", False, ("a = 1",)))
    recording.take(StepTaken(0, "y = 2", False, ("x = 12", "y = 2")))
    print_so_far(out, errors, recording)
    assert said(out) == "x = 12\ny = 2\n"
    assert said(errors) == "no answer yet; above is the longest attempt so far\n"
    recording.take(BestSoFar("14", 1.0, 0.9))
    out = console()
    print_so_far(out, errors, recording)
    assert said(out) == "answer so far: 14 (about 90% sure)\n"


def test_the_cost_is_in_plain_words_and_details_are_for_verbose() -> None:
    plain, verbose = console(), console(width=200)
    print_cost(plain, result(notes=("the system message was dropped",)), 4, "a-model")
    assert said(plain).splitlines() == [
        "note: the system message was dropped",
        "stopped because the vote was settled",
        "19.9 s, 4 samples, 488 tokens",
        "a-model, as a program",
    ]
    print_cost(verbose, result(difficulty=Difficulty(1, 0.4)), 4, "a-model", verbose=True)
    assert said(verbose).splitlines()[-1] == (
        "adaptive:n=16 (asked for), difficulty 2 of 5, 488 policy + 0 verifier tokens, 1534 MB, seed 0"
    )
