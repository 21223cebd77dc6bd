"""A search as its events tell it."""

from __future__ import annotations

from dataclasses import dataclass

from showing import finished

from edge_tts.core import StepValue
from edge_tts.events import (
    BestSoFar,
    CandidateScored,
    Decided,
    DifficultyEstimated,
    Explained,
    StepTaken,
    StrategyChosen,
)
from edge_tts.questions.recording import Recording


def test_a_candidate_gathers_its_steps_values_and_score() -> None:
    recording = Recording()
    recording.take(StepTaken(0, "a = 1", False, ("a = 1",), (StepValue("a", "1"),)))
    recording.take(StepTaken(1, "b = 2", False, ("b = 2",)))
    recording.take(StepTaken(0, "answer = 3", True, ("a = 1", "answer = 3"), (StepValue("answer", "3"),), answer="3"))
    recording.take(CandidateScored(0, 0.25))
    first, second = recording.attempts
    assert (first.number, first.steps, first.answer, first.score) == (1, ("a = 1", "answer = 3"), "3", 0.25)
    assert first.values == ((StepValue("a", "1"),), (StepValue("answer", "3"),))
    assert (second.number, second.finished, second.score) == (2, False, None)


def test_the_next_candidate_of_a_lane_is_another_one() -> None:
    recording = Recording()
    recording.take(finished(0, "first attempt", answer="1"))
    recording.take(StepTaken(0, "second", False, ("second",)))
    recording.take(StepTaken(0, "third", False, ("branch", "third")))
    assert [attempt.steps for attempt in recording.attempts] == [("first attempt",), ("second",), ("branch", "third")]
    recording.take(CandidateScored(0, 0.5))
    assert [attempt.score for attempt in recording.attempts] == [None, None, 0.5]


def test_a_step_that_turns_out_to_be_longer_is_the_same_candidate() -> None:
    recording = Recording()
    recording.take(StepTaken(0, "```\na", False, ("```\na",)))
    recording.take(StepTaken(0, "b\n```", False, ("```\na\n\nb\n```",)))
    (attempt,) = recording.attempts
    assert attempt.steps == ("```\na\n\nb\n```",)
    assert len(attempt.values) == 1


def test_a_line_of_a_program_is_told_with_its_value() -> None:
    step, value = "left = pencils - 20  # 76", StepValue("left", "76")
    told = Recording().take(StepTaken(1, "left = pencils - 20", False, ("pencils = 96", step), (value,)))
    assert told.line == f"[1] {step}"


def test_the_end_of_a_program_is_told_in_words() -> None:
    recording = Recording()
    recording.take(StepTaken(0, "answer = 3", False, ("answer = 3",)))
    assert recording.take(StepTaken(0, "```", True, ("answer = 3",), answer="3")).line == "[1] (end of the program)"


def test_equal_answers_are_one_group_and_failures_are_none() -> None:
    recording = Recording()
    for lane, answer in enumerate(("3", "0.5", "1/2", None, "$0.50")):
        recording.take(finished(lane, f"step {lane}", answer=answer))
    found = [(group.answer, [attempt.number for attempt in group.attempts]) for group in recording.groups()]
    assert found == [("0.5", [2, 3, 5]), ("3", [1])]


def test_the_confidence_is_known_until_another_candidate_ends() -> None:
    recording = Recording()
    recording.take(finished(0, "a", answer="1"))
    recording.take(BestSoFar("1", 1.0, 0.67))
    assert recording.confidence == 0.67
    recording.take(finished(1, "b", answer="2"))
    assert recording.confidence is None
    recording.take(Decided("sample", 2, 0.5, "the vote is open"))
    recording.take(Decided("stop", 2, 0.5, "there is no more to spend"))
    assert recording.confidence == 0.5
    assert recording.confidences == [0.67, 0.5]


def test_an_explanation_that_comes_word_by_word_is_one_line() -> None:
    recording = Recording()
    recording.take(finished(0, "a", answer="1"))
    for word in ("It ", "is ", "one."):
        recording.take(Explained(word))
    assert recording.explanation == "It is one."
    assert [moment.line for moment in recording.moments] == ["[1] a", "explained: It is one."]


def test_every_event_is_a_line_of_the_time_line() -> None:
    @dataclass(frozen=True)
    class Unheard:
        reason: str

    times = iter((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0))
    recording = Recording(lambda: next(times))
    recording.take(StrategyChosen("greedy", "asked for"))
    recording.take(DifficultyEstimated(1, 0.4))
    recording.take(finished(3, "1+1=2", answer="2"))
    recording.take(BestSoFar("2", 1.0, 0.671))
    recording.take(finished(4, "x", error="NameError: x"))
    recording.take(Unheard("something new happens"))
    recording.take(object())
    assert [(moment.seconds, moment.kind, moment.line) for moment in recording.moments] == [
        (1.0, "StrategyChosen", "strategy greedy: asked for"),
        (2.0, "DifficultyEstimated", "difficulty 2 of 5 (score 0.400)"),
        (3.0, "StepTaken", "[1] 1+1=2"),
        (4.0, "BestSoFar", "best so far: 2 (67%)"),
        (5.0, "StepTaken", "[2] NameError: x"),
        (6.0, "Unheard", "something new happens"),
        (7.0, "object", "object"),
    ]
    assert (recording.strategy, recording.difficulty) == ("greedy", 1)
