"""The live view: what it draws, in how many lines, and what it leaves behind."""

from __future__ import annotations

import pytest
from showing import console, finished, said

from edge_tts.commands.live import LiveView
from edge_tts.events import (
    BestSoFar,
    Event,
    Explained,
    StepTaken,
    StrategyChosen,
)
from edge_tts.questions.recording import Recording

EVENTS: tuple[Event, ...] = (
    StrategyChosen("adaptive:n=16", "there is no table"),
    StepTaken(0, "a = 1", False, ("a = 1",)),
    finished(1, "b = 2", "answer = 2", answer="2"),
    BestSoFar("2", 1.0, 0.67),
    finished(2, "c = d", error="NameError: name 'd' is not defined"),
    finished(3, "answer = 3", answer="3"),
    finished(4, "answer = 2.0", answer="2.0"),
    BestSoFar("2", 0.67, 0.6),
)


def view(width: int = 80, height: int = 24, events: tuple[Event, ...] = EVENTS) -> tuple[LiveView, list[str]]:
    """The view after ``events``, and the lines it draws."""
    live = LiveView(console(width, height, terminal=True), Recording(), 30, 16)
    for event in events:
        live.show(event)
    screen = console(width, height)
    screen.print(live.picture())
    return live, [line.rstrip() for line in said(screen).splitlines()]


def test_it_draws_votes_confidence_steps_and_failures() -> None:
    _, lines = view()
    assert lines[0] == "adaptive:n=16"
    assert lines[1].split() == ["2", "█" * 13, "2"]
    assert lines[2].split() == ["3", "█" * 7, "1"]
    assert lines[3] == "best so far: 2 (likely, about 60%)"
    assert lines[4:9] == [
        "#1 … a = 1",
        "#2 ✓ 2 · b = 2 | answer = 2",
        "#3 ✗ NameError: name 'd' is not defined",
        "#4 ✓ 3 · answer = 3",
        "#5 ✓ 2.0 · answer = 2.0",
    ]
    assert lines[9].endswith("s of at most 30 s, 4 of at most 16 samples ended")


def test_a_text_that_states_a_false_equation_is_doubtful() -> None:
    steps = ("12 * 8 = 98.", r"\boxed{98}")
    _, lines = view(events=(StepTaken(0, steps[-1], True, steps, doubts=("12 * 8 = 98",), answer="98"),))
    assert lines[3] == r"#1 ✓ 98 · doubtful · 12 * 8 = 98. | \boxed{98}"


def test_an_explanation_is_drawn_as_it_comes_and_is_no_line_elsewhere() -> None:
    words = (Explained("Two "), Explained("is right."))
    _, lines = view(events=(*EVENTS, *words))
    assert lines[3] == "explaining: Two is right."
    screen = console()
    with LiveView(screen, Recording()) as live:
        for event in words:
            live.show(event)
    assert said(screen) == ""


def test_a_stale_confidence_is_not_drawn() -> None:
    _, lines = view(events=(*EVENTS, finished(5, "answer = 7", answer="7")))
    assert "best so far: 2" in lines


@pytest.mark.parametrize("height", [4, 6, 9, 24])
def test_it_fits_the_height_of_the_terminal_and_its_width(height: int) -> None:
    steps = tuple(f"a quite long step number {i}, which goes on" for i in range(9))
    many = [finished(lane, *steps, answer=str(lane % 7)) for lane in range(40)]
    running = [StepTaken(lane, steps[-1], False, steps) for lane in range(40, 60)]
    _, lines = view(40, height, (*EVENTS, *many, *running))
    assert len(lines) < height
    assert all(len(line) <= 40 for line in lines)
    if height == 24:
        assert any(line.startswith("#65 …") for line in lines)
        assert sum("number 8, which goes on" in line for line in lines) > 5, "the newest steps are the ones shown"


def test_it_leaves_a_tally_of_three_lines() -> None:
    live, _ = view()
    screen = live._console
    with live:
        pass
    *_, votes, confidence, spent = said(screen).splitlines()
    assert "votes: 2 for 2, 1 for 3, 1 failed, 1 unfinished" in votes
    assert "confidence: 67%, then 60%" in confidence
    assert "search: adaptive:n=16; " in spent
    assert "4 of at most 16 samples ended" in spent


def test_the_tally_ends_with_the_last_confidence() -> None:
    live, _ = view(80, events=tuple(BestSoFar("2", 1.0, 0.9 + share / 100) for share in range(10)))
    with live:
        pass
    *_, confidence, _ = said(live._console).splitlines()
    assert "then 98%, then 99%" in confidence


def test_elsewhere_it_writes_one_line_for_each_event() -> None:
    screen = console()
    with LiveView(screen, Recording()) as live:
        for event in EVENTS:
            live.show(event)
    lines = said(screen).splitlines()
    assert len(lines) == len(EVENTS)
    assert lines[0].endswith(" s  strategy adaptive:n=16: there is no table")
    assert lines[4].endswith(" s  [3] NameError: name 'd' is not defined")
    assert "\x1b" not in said(screen)
