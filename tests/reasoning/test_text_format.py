"""The text format: what is asked, where steps end, and what is reasoning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tts.core import StepEvent, StopReason, Trace
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.formats import DOUBTED_WEIGHT, AskedText
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.text_format import LONGEST_DISPLAY, StepSplitter, split_steps
from edge_tts.reasoning.text_prompt import EXAMPLES, INSTRUCTIONS, ask
from edge_tts.reasoning.thinking import Thought, split_thinking
from edge_tts.runtimes.scripted import ScriptedPolicy
from edge_tts.search.selection import majority

FRAGMENTS = ["a", "é", "\n", "\n\n", " ", "\\[", "\\]", "$$", "```", "```python\n", "~~~", "\\\\[2pt]", "x = 1", "\r\n"]


def test_paragraphs_are_steps() -> None:
    assert split_steps("\n\nFirst,\nwe add.\n\n\n  Then\n \t\nwe stop.\n") == ("First,\nwe add.", "Then", "we stop.")
    assert split_steps("") == split_steps("\n \n") == ()


@pytest.mark.parametrize(
    "whole",
    [
        "We get\n\\[\n12\n\n+ 3\n\\]\nso 15.",
        "$$\na \\\\[2pt]\n\nb\n$$",
        "```python\nx = 1\n\n# \\[ is no formula here\ny = 2\n```",
        "~~~\n```\n\n~~~",
        "````\n```\n\n````",
        "\\[ \\begin{cases} a \\\\[4pt]\n\nb \\end{cases} \\]",
    ],
)
def test_displayed_mathematics_and_code_stay_whole(whole: str) -> None:
    assert split_steps(f"Before.\n\n{whole}\n\nAfter.") == ("Before.", whole, "After.")


def test_display_within_a_line_opens_nothing() -> None:
    assert split_steps("So $$x = 2$$ and \\[y\\].\n\nNext.") == ("So $$x = 2$$ and \\[y\\].", "Next.")


def test_a_display_that_is_never_closed_does_not_swallow_the_rest() -> None:
    long = "x" * LONGEST_DISPLAY
    assert split_steps(f"It costs $$.\n\n{long}\n\nThen.\n\nEnd.") == (f"It costs $$.\n\n{long}", "Then.", "End.")


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join), st.integers(1, 7), st.booleans())
def test_parts_of_any_size_give_the_same_steps(text: str, size: int, as_bytes: bool) -> None:
    splitter = StepSplitter()
    whole: str | bytes = text.encode() if as_bytes else text
    steps = [step for start in range(0, len(whole), size) for step in splitter.feed(whole[start : start + size])]
    steps += splitter.finish()
    assert tuple(steps) == split_steps(text)
    assert "".join("".join(steps).split()) == "".join(text.split())


def test_a_step_comes_out_as_soon_as_its_blank_line_does() -> None:
    splitter = StepSplitter()
    assert splitter.feed("One.\n") == []
    assert splitter.feed("\n") == ["One."]
    assert splitter.feed(b"Tw\xc3") == []
    assert splitter.feed(b"\xb6.") == []
    assert splitter.finish() == ["Twö."]
    assert splitter.finish() == []


def test_the_instruction_goes_into_the_system_message() -> None:
    question = Message("user", "What is 3 + 4?")
    assert ask([question], "math") == (Message("system", INSTRUCTIONS["math"]), question)
    system = Message("system", "You are a tutor.\n")
    assert ask([system, question], "math")[0].content == f"You are a tutor.\n\n{INSTRUCTIONS['math']}"
    assert all(r"\boxed{}" in instruction for instruction in INSTRUCTIONS.values())


def test_examples_come_before_the_question_and_read_as_right_steps() -> None:
    question = Message("user", "What is 12 times 8?")
    turns = replace(AskedText.of(ChatTemplate(None), (question,)), examples=EXAMPLES).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert turns[-1] == question
    for example, solved in EXAMPLES:
        answering = AskedText.of(ChatTemplate(None), (Message("user", example),), "math")
        trace = answering.extended(Trace((1,)), StepEvent(0, solved, (2,), -0.1, 0, 0, "end"))
        assert trace.answer
        assert solved.endswith(rf"\boxed{{{trace.answer}}}")
        assert trace.doubts == ()
        assert len(trace.steps) > 1


@pytest.mark.parametrize(
    ("text", "is_open", "thought"),
    [
        ("No tags.", False, Thought("", "No tags.")),
        ("<think>\nHm.\n</think>\n\nIt is 7.", False, Thought("Hm.", "It is 7.")),
        ("Hm.\n</think>\nIt is 7.", True, Thought("Hm.", "It is 7.")),
        ("Hm.\n</think>\nIt is 7.", False, Thought("Hm.", "It is 7.")),
        ("<think>Hm.</think>It is 7.", True, Thought("Hm.", "It is 7.")),
        ("<think>still", False, Thought("still", "")),
        ("still", True, Thought("still", "")),
        ("<think>a</think>b<think>c</think>d", False, Thought("a\n\nc", "bd")),
        ("a</think>b<think>c</think>d", False, Thought("a\n\nc", "bd")),
        ("", True, Thought("", "")),
    ],
)
def test_reasoning_is_kept_apart(text: str, is_open: bool, thought: Thought) -> None:
    assert split_thinking(text, is_open) == thought


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " "]), max_size=12).map("".join), st.booleans())
def test_no_letter_is_lost_between_reasoning_and_text(text: str, is_open: bool) -> None:
    thought = split_thinking(text, is_open)
    assert (thought.thinking + thought.text).count("a") == text.count("a")


def test_a_false_equation_is_noted_and_halves_the_vote() -> None:
    asked = AskedText.of(ChatTemplate(None), (Message("user", "What is 12 times 8?"),))

    def trace(*paragraphs: str) -> Trace:
        grown = Trace((1,))
        for number, text in enumerate(paragraphs, 1):
            stop: StopReason | None = "end" if number == len(paragraphs) else None
            grown = asked.extended(grown, StepEvent(0, text, (2,), -0.1, 0, 0, stop))
        return grown

    right = trace("We multiply: 12 * 8 = 96.", r"So \boxed{96}.")
    wrong = trace("We multiply: 12 * 8 = 98.", r"So \boxed{98}.")
    assert (right.answer, right.doubts, right.weight) == ("96", (), 1.0)
    assert (wrong.answer, wrong.doubts, wrong.weight) == ("98", ("12 * 8 = 98",), DOUBTED_WEIGHT)
    choice = majority([wrong, right])
    assert choice.best is right
    assert choice.support == 1 / (1 + DOUBTED_WEIGHT)


def test_a_step_that_goes_on_is_scored_again() -> None:
    asked = AskedText.of(ChatTemplate(None), (Message("user", "What is 1 + 2?"),))

    def written(trace: Trace, *texts: str) -> Trace:
        for text in texts:
            trace = asked.extended(trace, StepEvent(0, text, (1,), 0.0, 0, 0, "step"))
        return trace

    whole = replace(written(Trace((0,)), "We add.", "Then:"), scores=(0.5, 0.6))
    assert written(whole, "So 3.").scores == (0.5, 0.6)
    opened = replace(written(Trace((0,)), "We add.", "$$ 1"), scores=(0.5, 0.6))
    closed = written(opened, "+ 2 $$")
    assert closed.steps == ("We add.", "$$ 1\n\n+ 2 $$")
    assert closed.scores == ()


def test_a_revision_shows_each_attempt_as_a_turn_and_asks_to_check_it() -> None:
    asked = AskedText.of(ChatTemplate(None), (Message("user", "What is 12 times 8?"),))
    policy = ScriptedPolicy(lambda text, seed: "")
    attempts = [Trace((1,), text="It is 98."), Trace((1,), text="It is 96.")]
    prompt = "".join(map(chr, asked.prompt(policy, attempts)))
    turns = [turn.partition("\n")[0] for turn in prompt.split("<|im_start|>")[1:]]
    assert turns == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert prompt.index("It is 98.") < prompt.index("Check the solution above") < prompt.index("It is 96.")
    assert prompt.endswith("<|im_start|>assistant\n")
