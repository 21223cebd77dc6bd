"""The parts of the desktop app that need no model: the state of a search, the table and the history."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from desktop_app import ANSWERED, DESKTOP, QUESTION, application, serve
from edge_desktop.answer_view import AnswerView
from edge_desktop.answer_view import votes as votes_told
from edge_desktop.ask_view import DurationBox
from edge_desktop.candidates import CandidateModel
from edge_desktop.display import problem
from edge_desktop.history import Details, History, HistoryError
from edge_desktop.search import Candidate, Search
from edge_desktop.theme import Theme
from edge_desktop.units import duration, file_size, flops, seconds_of
from edge_desktop.window import Window
from PySide6.QtCore import Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication, QLabel

from edge_tts import (
    BestSoFar,
    CandidateScored,
    Decided,
    DifficultyEstimated,
    Event,
    Explained,
    StepTaken,
    StrategyChosen,
)

# --- what a search has done --------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def qt() -> QApplication:
    """Widgets need it; kept here, since it goes with its last reference."""
    return application()


def after(*events: Event, generations: int = 16) -> Search:
    search = Search(generations, "#### ")
    for event in events:
        search.take(event)
    return search


def test_samples_go_on_from_those_that_estimated_the_difficulty() -> None:
    search = after(
        StepTaken(0, "1+1=2", False, ("1+1=2",)),
        StepTaken(0, "#### 2", True, ("1+1=2", "#### 2"), answer="2"),
        CandidateScored(0, 0.7),
        DifficultyEstimated(1, 0.7),
        StrategyChosen("weighted:n=2", "best on validation"),
        StepTaken(1, "1+1=3", False, ("1+1=3",)),
        BestSoFar("2", 0.7, 0.8),
    )
    assert search.candidates == [Candidate(("1+1=2", "#### 2"), True, 0.7, "2"), Candidate(("1+1=3",))]
    assert [search.work(candidate) for candidate in search.candidates] == [("1+1=2",), ("1+1=3",)]
    assert (search.voters, search.ended, search.confidence) == (1, 1, 0.8)
    assert (search.difficulty, search.best, search.spent, search.round) == (1, "2", 2, 0)


@pytest.mark.parametrize("strategy", ["beam:n=4,m=2", "particles:n=4", "dvts:n=4", "lookahead:n=2,k=1"])
def test_a_search_over_steps_shows_one_round_at_a_time(strategy: str) -> None:
    search = after(
        StrategyChosen(strategy, "asked for"),
        StepTaken(0, "a", False, ("a",)),
        StepTaken(1, "b", False, ("b",)),
        CandidateScored(0, 0.2),
        CandidateScored(1, 0.4),
        StepTaken(0, "c", False, ("b", "c")),
    )
    assert search.candidates == [Candidate(("b", "c"))]
    assert (search.round, search.spent) == (2, 4)
    assert not search.votes_are_counted


def test_a_chain_of_revisions_starts_its_row_over() -> None:
    search = after(
        StrategyChosen("revise:n=2,s=2", "asked for"),
        StepTaken(0, "#### 1", True, ("#### 1",)),
        CandidateScored(0, 0.1),
        StepTaken(0, "2*3=6", False, ("2*3=6",)),
    )
    assert search.candidates == [Candidate(("2*3=6",))]
    assert search.spent == 2


def test_the_table_follows_a_search() -> None:
    model = CandidateModel()
    tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    model.start(Search(4, "#### "))
    for event in (
        StrategyChosen("beam:n=2,m=2", "asked for"),
        StepTaken(1, "1+1=2", False, ("1+1=2",)),
        CandidateScored(1, 0.25),
        StepTaken(0, "<b>2</b>", False, ("<b>2</b>",)),
        StepTaken(0, "#### 2", True, ("<b>2</b>", "#### 2"), answer="2"),
    ):
        model.take(event)
    row = [model.data(model.index(0, column)) for column in range(model.columnCount())]
    assert row == ["1", "<b>2</b>", "2", ""]
    assert "<b>" not in model.data(model.index(0, 1), Qt.ItemDataRole.ToolTipRole)
    assert tester.model() is model


def test_a_program_that_failed_shows_its_error() -> None:
    model = CandidateModel()
    model.start(Search(4, ""))
    for event in (
        StrategyChosen("adaptive:n=4", "decided after every wave"),
        StepTaken(0, "a = 2  # 2", False, ("a = 2  # 2",)),
        StepTaken(0, "b = c", True, ("a = 2  # 2", "b = c"), error="NameError: name 'c' is not defined"),
        StepTaken(1, "answer = 2  # 2", True, ("answer = 2  # 2",), answer="2"),
    ):
        model.take(event)
    rows = [[model.data(model.index(row, column)) for column in (1, 2)] for row in (0, 1)]
    assert rows == [["NameError: name 'c' is not defined", "none"], ["answer = 2 # 2", "2"]]
    assert [candidate.failed for candidate in model.search.candidates] == [True, False]
    assert (model.search.voters, model.search.ended) == (1, 2)


def test_what_does_not_hold_is_told_below_the_steps() -> None:
    model = CandidateModel()
    model.start(Search(4, "#### "))
    model.take(StepTaken(0, "12 * 8 = 98", False, ("12 * 8 = 98",), doubts=("12 * 8 = 98", "1 + 1 = 3")))
    shown = model.data(model.index(0, 1), Qt.ItemDataRole.ToolTipRole)
    assert "12 * 8 = 98\ndoes not hold: 12 * 8 = 98; 1 + 1 = 3<" in shown


def test_what_was_decided_is_told_and_unknown_events_change_nothing() -> None:
    search = after(
        StrategyChosen("something:new=1", "an idea of tomorrow"),
        StepTaken(0, "a", True, ("a",), answer="a"),
        BestSoFar("a", 0.5, 0.5),
        Decided("sample", 4, 0.6, "the vote is open"),
        Explained("Since "),
        Explained("a."),
    )
    before = replace(search)
    assert search.take(SimpleNamespace(reason="an event of tomorrow")) is None
    assert search == before
    assert (search.decision, search.confidence) == ("After 4 samples: the vote is open", 0.6)
    assert (search.strategy, search.explanation) == ("something:new=1", "Since a.")


# --- the answer -----------------------------------------------------------------------------------


@pytest.fixture
def theme() -> Theme:
    return Theme(application())


def voted(votes: tuple[tuple[str, float], ...], voters: int, samples: int, answer: str = "76") -> tuple[str, ...]:
    details = Details(voters=voters, samples=samples, votes=votes)
    return votes_told(replace(ANSWERED, answer=answer, support=votes[0][1], details=details))


def test_votes_are_told_in_samples_where_each_counts_alike() -> None:
    assert voted((("76", 0.75), ("80", 0.25)), 4, 4) == ("3 of 4 samples agree.", "1 for 80")
    assert voted((("76", 1.0),), 1, 1) == ("One sample, so there was no vote.",)
    split = voted((("76", 0.3333), ("80", 0.3333), ("1", 0.3333)), 3, 5)
    assert split[:2] == ("1 of 3 samples with an answer agrees.", "2 ended without an answer.")
    assert voted((("76", 0.62), ("80", 0.38)), 4, 4) == ("62% of the vote.", "38%: 80")
    assert voted((("76", 0.62),), 0, 0) == ("62% of the vote.",)


@pytest.mark.parametrize(
    ("confidence", "tone", "words"),
    [
        (0.95, "good", "About 95% sure"),
        (0.72, "accent", "Likely, about 72%"),
        (0.55, "warn", "Unsure, 55%"),
        (0.2, "bad", "A guess, 20%"),
        (None, "", ""),
    ],
)
def test_an_answer_is_coloured_by_how_sure_it_is(confidence: float | None, tone: str, words: str, theme: Theme) -> None:
    view = AnswerView()
    view.show_answered(replace(ANSWERED, details=Details(confidence=confidence)))
    assert (view.answer.property("tone"), view.sureness.text()) == (tone, words)
    view.ensurePolished()
    view.answer.ensurePolished()
    shown = view.answer.palette().color(view.answer.foregroundRole()).name()
    assert (shown == theme.colours.good) == (tone == "good")


def test_explanation_notes_and_the_longest_attempt_are_shown_where_there_are_any() -> None:
    view = AnswerView()
    details = Details("m", "program", 0.9, explanation=" So it is. ", escalation="big was asked", notes=("a note",))
    view.show_answered(replace(ANSWERED, details=details))
    assert (view.explanation.text(), view.remarks.text()) == ("So it is.", "big was asked\na note")
    assert "m, as a program" in view.facts.text()
    view.show_answered(replace(ANSWERED, answer=None, steps=(), details=Details(partial=("12 * 8 =",))))
    assert view.explanation.isHidden()
    assert view.remarks.isHidden()
    assert "12 * 8 =" in {part.text() for part in view.findChildren(QLabel)}
    assert "Below is the longest attempt" in view.note.text()


def test_a_solution_is_copied_as_it_is() -> None:
    view = AnswerView()
    view.show_answered(replace(ANSWERED, steps=("rolls_per_tray = 8", "answer = rolls_per_tray  # 8"), scores=()))
    view.copy.click()
    assert application().clipboard().text() == "rolls_per_tray = 8\nanswer = rolls_per_tray  # 8"


# --- history -----------------------------------------------------------------------------------


def test_history_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "history.sqlite3"
    history = History(path)
    kept = history.add(ANSWERED)
    history.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    again = History(path)
    assert again.find() == [(kept, QUESTION, "76")]
    assert again.get(kept) == ANSWERED
    again.close()


def test_a_history_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    new = History(path)
    new.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE answers DROP COLUMN details")
        connection.execute(
            "INSERT INTO answers VALUES (1, '2026-01-02T03:04:05+00:00', 'q', '7', 'complete', 'greedy', 'asked for', "
            "NULL, 1.0, '[]', '[]', '{}')"
        )
    connection.close()
    again = History(path)
    assert again.get(1).details == Details()
    kept = again.add(replace(ANSWERED, details=Details("m", "text", 0.7, 3, 4, (("76", 0.75), ("8", 0.25)))))
    assert again.get(kept).details.votes == (("76", 0.75), ("8", 0.25))
    again.close()


def test_history_is_searched_and_forgets(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite3")
    percent = history.add(replace(ANSWERED, question="What is 50% of 8?", answer="4"))
    other = history.add(replace(ANSWERED, question="What is 508 and x_y?", answer=None))
    assert [row[0] for row in history.find()] == [other, percent]  # the latest first
    assert [row[0] for row in history.find("50%")] == [percent]
    assert [row[0] for row in history.find("X_Y")] == [other]
    assert [row[0] for row in history.find("4")] == [percent]
    history.delete(percent)
    assert [row[0] for row in history.find()] == [other]
    with pytest.raises(HistoryError, match="another window"):
        history.get(percent)
    history.close()


def test_a_damaged_history_is_told_and_solving_goes_on(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(HistoryError, match="not a database"):
        History(path)
    window = Window(Theme(application()), path)
    serve(lambda: not window.banner.isHidden())
    assert "Solving works without it" in window.banner_text.text()
    window.close()
    assert path.read_bytes().startswith(b"this is no database")


# --- figures, and whether there is a display ----------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.049, "0.05 s"),
        (1.23, "1.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (125, "2 min 5 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45", 45), ("45 s", 45), ("2 min 5 s", 125), ("15 min", 900), ("1.5 min", 90), ("", None), ("soon", None)],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_a_field_of_seconds_keeps_what_it_was_set_to() -> None:
    box = DurationBox(minimum=0.5, maximum=100_000, decimals=1)
    box.setValue(7300.4)
    assert box.text() == "121 min 40 s"
    box.interpretText()
    assert box.value() == 7300.4
    box.lineEdit().setText("2 min")
    box.interpretText()
    assert box.value() == 120


@pytest.mark.parametrize(
    ("count", "text"), [(491_400_064, "491 MB"), (1_117_320_768, "1.1 GB"), (999_900_000, "1.0 GB")]
)
def test_sizes_of_files(count: int, text: str) -> None:
    assert file_size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 FLOP"), (6.54e9, "6.5 GFLOP"), (6.5e10, "65 GFLOP"), (9.996e11, "1.0 TFLOP"), (1e25, "10000000 EFLOP")],
)
def test_flops(count: float, text: str) -> None:
    assert flops(count) == text


@pytest.mark.skipif(sys.platform != "linux", reason="about X11")
def test_a_display_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem({"QT_QPA_PLATFORM": "offscreen"}) is None
    assert problem({"WAYLAND_DISPLAY": "wayland-0"}) is None
    assert "there is no display" in str(problem({}))
    assert "there is no display" in str(problem({"QT_QPA_PLATFORM": "xcb", "WAYLAND_DISPLAY": "wayland-0"}))

    def missing(path: str) -> None:
        assert path.endswith("libqxcb.so")
        raise OSError("libxcb-cursor.so.0: cannot open shared object file: No such file or directory")

    def missing_in_a_frozen_app(path: str) -> None:  # as PyInstaller tells it
        try:
            missing(path)
        except OSError as error:
            raise OSError("Most likely this dynlib/dll was not found when the application was frozen.") from error

    for loader in (missing, missing_in_a_frozen_app):
        monkeypatch.setattr("ctypes.CDLL", loader)
        assert "apt install libxcb-cursor0" in str(problem({"DISPLAY": ":0"}))


@pytest.mark.skipif(sys.platform != "linux", reason="about X11")
def test_the_app_says_so_and_ends() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, str(DESKTOP / "main.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"QT_QPA_PLATFORM": ""},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("edge-reason-desktop: there is no display")
    assert len(done.stderr.splitlines()) == 1
