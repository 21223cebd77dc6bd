"""The program format: what is asked, lines run as they come, and how a candidate ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tts.bench.hostile import HOSTILE
from edge_tts.core import Request as PolicyRequest
from edge_tts.core import (
    Sampling,
    StepEvent,
    StepValue,
    StopReason,
    Trace,
)
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_format import (
    LONGEST_LINE,
    MOST_LINES,
    AskedProgram,
    is_open,
    suits,
)
from edge_tts.reasoning.program_prompt import PROMPT
from edge_tts.reasoning.question_kind import AnswerKind, kind_of
from edge_tts.runtimes.scripted import ScriptedPolicy

QUESTION = "Tom has 8 boxes of 12 pencils. He gives away 20. How many pencils are left?"
PROGRAM = ["pencils = 8 * 12", "left = pencils - 20", "answer = left / 1"]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    with Interpreter() as made:
        yield made


@pytest.fixture(scope="module")
def asked(interpreter: Interpreter) -> AskedProgram:
    return AskedProgram.of(ChatTemplate(None), (Message("user", QUESTION),), interpreter)


def event(text: str, stop: StopReason | None = None) -> StepEvent:
    return StepEvent(0, text, (1, 2), -0.5, 0, 0, stop)


def written(asked: AskedProgram, lines: list[str], last: StopReason | None = None) -> Trace:
    """The trace after ``lines``; further ones are not given to a trace that is finished."""
    trace: Trace = Trace((7,))
    for number, line in enumerate(lines):
        trace = asked.extended(trace, event(line, last if number == len(lines) - 1 else None))
        if trace.finished:
            break
    return trace


def finished(asked: AskedProgram, program: str, kind: AnswerKind = "math") -> Trace:
    return written(replace(asked, kind=kind), [*program.split("\n"), "```"], "end")


# --- lines -----------------------------------------------------------------------------------


def test_each_line_is_run_as_soon_as_it_is_there(asked: AskedProgram) -> None:
    trace = written(asked, PROGRAM)
    assert trace.steps == ("pencils = 8 * 12  # 96", "left = pencils - 20  # 76", "answer = left / 1  # 76")
    assert trace.values == (
        (StepValue("pencils", "96"),),
        (StepValue("left", "76"),),
        (StepValue("answer", "76"),),
    )
    assert not trace.finished
    assert trace.answer is None
    assert trace.tokens == (7, 1, 2, 1, 2, 1, 2)
    assert trace.logprob == -1.5


@pytest.mark.parametrize(("line", "stop"), [("```", None), ("```", "end"), ("", "end")])
def test_the_answer_is_the_value_of_answer_when_the_program_ends(
    asked: AskedProgram, line: str, stop: StopReason | None
) -> None:
    trace = written(asked, [*PROGRAM, line], stop)
    assert (trace.finished, trace.answer, trace.vote, trace.error) == (True, "76", "76", "")
    assert len(trace.steps) == 3


def test_a_last_line_without_a_line_break_counts(asked: AskedProgram) -> None:
    assert written(asked, PROGRAM, "end").answer == "76"


@pytest.mark.parametrize("stop", ["length", "cancelled"])
def test_a_line_that_was_cut_is_not_run(asked: AskedProgram, stop: StopReason) -> None:
    trace = written(asked, [*PROGRAM[:2], "answer = left * 1"], stop)
    assert not trace.finished
    assert trace.answer is None
    assert len(trace.steps) == 2
    assert trace.text.endswith("answer = left * 1")


def test_a_step_limit_cuts_nothing(asked: AskedProgram) -> None:
    trace = written(asked, PROGRAM[:1], "step")
    assert trace.variables == (StepValue("pencils", "96"),)
    assert not trace.finished


def test_fences_that_the_model_writes_again_and_blank_lines_are_no_steps(asked: AskedProgram) -> None:
    trace = written(asked, ["```python", "", *PROGRAM, "", "```"], "end")
    assert trace.answer == "76"
    assert len(trace.steps) == 3


def test_a_comment_is_a_step_without_a_value(asked: AskedProgram) -> None:
    trace = written(asked, ["# all pencils", *PROGRAM])
    assert (trace.steps[0], trace.values[0]) == ("# all pencils", ())


def test_a_value_that_is_written_already_is_not_repeated(asked: AskedProgram) -> None:
    trace = written(asked, ["boxes = 8", "a, b = 1, 2.0", "boxes += 1", "boxes = 9"])
    assert trace.steps == ("boxes = 8", "a, b = 1, 2.0  # a = 1, b = 2", "boxes += 1  # 9", "boxes = 9")
    assert trace.values[3] == (StepValue("boxes", "9"),)


@pytest.mark.parametrize(
    "program",
    [
        "total = 0\nfor box in range(8):\n    total += 12\n    total -= 0\nanswer = total - 20",
        "pencils = 8 * 12\nwhile pencils > 80:\n    x = 1\n    pencils -= 20\nanswer = pencils",
        "values = [\n    8 * 12,\n    -20,\n]\nanswer = sum(values)",
        "def left(a, b):\n    return a * b - 20\n\nanswer = left(8, 12)",
        "if 8 > 12:\n    answer = 1\nelse:\n    answer = 8 * 12 - 20",
        "answer = (8 * 12\n          - 20)",
    ],
)
def test_blocks_and_brackets_are_run_when_they_are_complete(asked: AskedProgram, program: str) -> None:
    trace = finished(asked, program)
    assert (trace.answer, trace.error) == ("76", "")
    assert len(trace.steps) == len([line for line in program.split("\n") if line])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], False),
        (["x = 1"], False),
        (["for x in y:"], True),
        (["for x in y:  # each"], True),
        (["for x in y:", "    z = x"], True),
        (["for x in y:", "    z = x", "a = 1"], False),
        (["for x in y: z = x"], False),
        (["x = ["], True),
        (["x = [", "1]"], False),
        (["x = '''a"], True),
        (["x = 'a"], False),
        (["x = 1)"], False),
        (["@cache"], True),
        (["  x = 1", " y"], True),
        (["x = 1 + \\"], True),
        (["# only:"], False),
    ],
)
def test_what_is_open_waits(lines: list[str], expected: bool) -> None:
    assert is_open(lines) is expected


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["left = 8 * 12 - 20", "left = 8 * 12 - 20\nprint(left)"])
def test_a_program_without_answer_means_what_its_last_line_assigns_or_prints(asked: AskedProgram, program: str) -> None:
    assert finished(asked, program).answer == "76"


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("pencils = 8 * 12\nleft = pencil - 20", "NameError: name 'pencil' is not defined"),
        ("answer = 8 / 0", "ZeroDivisionError"),
        ("First, we multiply 8 by 12.", "SyntaxError"),
        ("while 8 < 12: pass", "TimeoutError"),
        ("x = 8\nx = '" + "a" * LONGEST_LINE + "'", "a line has more than"),
        ("\n".join(f"x{i} = 8" for i in range(MOST_LINES + 5)), "the program has more than"),
        ("a, b = 8, 12", "the program ends without a plain value in `answer`"),
        ("answer = None\nx = 8", "the program ends without a plain value in `answer`"),
        ("answer = {8: 12}", "the program ends without a plain value in `answer`"),
        ("answer = float('inf') * 8", "the program ends without a plain value in `answer`"),
        ("", "the program ends without a plain value in `answer`"),
        ("answer = 76", "the program uses none of the numbers in the problem"),
        ("answer = 8 > 12", "`answer` is True or False, and the problem does not ask for yes or no"),
        ("if 8 > 3:\n    answer = nothing", "NameError"),
    ],
)
def test_an_error_or_a_program_that_solves_nothing_ends_the_candidate(
    asked: AskedProgram, program: str, error: str
) -> None:
    trace = finished(asked, program)
    assert trace.finished
    assert trace.answer is None
    assert trace.vote == ""
    assert trace.error.startswith(error)
    assert len(trace.steps) == len(trace.values)


def test_an_error_ends_it_at_its_line(asked: AskedProgram) -> None:
    trace = written(asked, ["pencils = 8 * 12", "left = pencil - 20", "answer = left", "```"])
    assert trace.steps == ("pencils = 8 * 12  # 96", "left = pencil - 20")
    after = asked.extended(trace, event("answer = 8"))
    assert (after.answer, after.steps, after.tokens) == (None, trace.steps, (*trace.tokens, 1, 2))


@pytest.mark.parametrize(
    ("question", "program"),
    [
        ("A coat of $1,200 is 25% off. What does it cost?", "answer = 900 / 0.75"),
        ("Three cats have 4 kittens each. How many?", "answer = 3 + 9"),
        ("Half of 30 pupils?", "answer = 15 / 2"),
        ("How many legs do a dog and a bird have together?", "answer = 6"),
    ],
)
def test_using_a_number_in_another_spelling_is_using_it(asked: AskedProgram, question: str, program: str) -> None:
    assert finished(replace(asked, messages=(Message("user", question),)), program).error == ""


@pytest.mark.parametrize(
    ("program", "kind", "answer", "vote"),
    [
        ("answer = 8 * 12 > 20", "yes-no", "Yes", "yes"),
        ("answer = 'no' if 8 < 12 else 'yes'", "yes-no", "No", "no"),
        ("answer = 'B' if 8 < 12 else 'A'", "choice", "B", "b"),
        ("answer = 0.1 * 8 + 0.2 * 8", "math", "2.4", "2.4"),
        ("answer = f'${8 * 12:.2f}'", "math", "$96.00", "$96.00"),
        ("import datetime\nanswer = datetime.date(2024, 8, 12)", "text", "2024-08-12", "2024-08-12"),
    ],
)
def test_answers_of_each_kind(asked: AskedProgram, program: str, kind: AnswerKind, answer: str, vote: str) -> None:
    trace = finished(asked, program, kind)
    assert (trace.answer, trace.vote) == (answer, vote)


def test_a_worker_that_cannot_be_started_costs_the_candidate_and_says_so(asked: AskedProgram, tmp_path: Path) -> None:
    with Interpreter(binary=tmp_path / "missing") as broken:
        trace = written(replace(asked, interpreter=broken), PROGRAM)
    assert trace.finished
    assert "does not start" in trace.error


def test_candidates_share_what_their_programs_begin_with(asked: AskedProgram) -> None:
    begin = ["shared_pencils = 8 * 12", "shared_left = shared_pencils - 20"]
    assert written(asked, begin).run_seconds > 0
    assert written(asked, begin).run_seconds == 0


# --- any program -----------------------------------------------------------------------------


@pytest.mark.parametrize("program", [program for program in HOSTILE if "\ud800" not in program][::3])
def test_hostile_programs_end_or_go_on_and_never_raise(asked: AskedProgram, program: str) -> None:
    trace = finished(asked, program)
    assert trace.finished
    assert bool(trace.error) is (trace.answer is None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ax01 =+-*/()[]{}:#'\"\\\t`é") | st.characters(codec="utf-8"), max_size=20)))
def test_no_text_raises(asked: AskedProgram, lines: list[str]) -> None:
    trace = written(asked, [line.replace("\n", " ") for line in lines])
    assert len(trace.steps) == len(trace.values)
    assert trace.answer is None or trace.finished


# --- prompts ---------------------------------------------------------------------------------


def text_of(tokens: tuple[int, ...]) -> str:
    return "".join(map(chr, tokens))


def test_the_prompt_has_the_instruction_the_examples_the_question_and_an_open_program(asked: AskedProgram) -> None:
    policy = ScriptedPolicy(lambda text, seed: "")
    prompt = text_of(asked.prompt(policy))
    positions = [
        prompt.index(part) for part in (PROMPT.instruction, *(problem for problem, _ in PROMPT.examples), QUESTION)
    ]
    assert positions == sorted(positions)
    assert prompt.endswith("<|im_start|>assistant\n```python\n")


def test_a_system_message_of_the_user_stays_first(asked: AskedProgram) -> None:
    messages = (Message("system", "Prices are in euros."), Message("user", QUESTION))
    prompt = text_of(replace(asked, messages=messages).prompt(ScriptedPolicy(lambda text, seed: "")))
    assert prompt.index("Prices are in euros.") < prompt.index(PROMPT.instruction) < prompt.index(PROMPT.examples[0][0])
    assert prompt.count("<|im_start|>system") == 1


def test_a_revision_shows_each_program_and_what_running_it_said(asked: AskedProgram) -> None:
    right = written(asked, [*PROGRAM, "```"], "end")
    wrong = written(asked, ["pencils = 8 * 12", "left = pencil - 20"])
    prompt = text_of(asked.prompt(ScriptedPolicy(lambda text, seed: ""), [wrong, right]))
    assert "left = pencil - 20\n```<|im_end|>" in prompt
    assert "NameError: name 'pencil' is not defined" in prompt
    assert "pencils = 96\nleft = 76\nanswer = 76" in prompt
    assert prompt.index("NameError") < prompt.index("left = 76")
    assert prompt.endswith("<|im_start|>assistant\n```python\n")


@pytest.mark.parametrize(("problem", "program"), PROMPT.examples)
def test_the_examples_are_programs_of_this_format(asked: AskedProgram, problem: str, program: str) -> None:
    trace = finished(replace(asked, messages=(Message("user", problem),)), program.rstrip("\n"))
    assert trace.error == ""
    assert trace.answer in ("11", "54")


def test_a_policy_writes_a_program_and_it_is_run(asked: AskedProgram) -> None:
    policy = ScriptedPolicy(lambda text, seed: "pencils = 8 * 12\n\nanswer = pencils - 20\n```")
    request = PolicyRequest(asked.prompt(policy), 1, Sampling(max_tokens=100), delimiter=asked.delimiter)
    trace: Trace = Trace(request.tokens)
    for step in policy.generate([request]):
        trace = asked.extended(trace, step)
    assert trace.answer == "76"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 15% of 80?", True),
        ("How many legs do three dogs and two birds have?", True),
        ("If today is Wednesday, what day of the week is it in 10 days?", True),
        ("Which is larger, 3/4 or 0.7?", True),
        ("Which shop is cheaper: 3 pens for 4 dollars, or 5 pens for 6 dollars?", True),
        ("When does a film of 95 minutes end that begins at 20:15?", True),
        ("What is the capital of Australia?", False),
        ("Which planet is the largest?", False),
        ("Who wrote 1984?", False),
        ("What day comes after Monday?", False),
        ("Is 91 a prime number?", False),
    ],
)
def test_computations_are_told_from_other_questions(question: str, expected: bool) -> None:
    assert suits(question, kind_of(question)) is expected
