"""The parts of the desktop app that need no model: the state of a search, the table and the history."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from desktop_app import ANSWERED, DESKTOP, QUESTION, application, serve
from edge_desktop.candidates import CandidateModel
from edge_desktop.display import problem
from edge_desktop.history import History, HistoryError
from edge_desktop.search import Candidate, Search
from edge_desktop.theme import Theme
from edge_desktop.units import duration, flops
from edge_desktop.window import Window
from PySide6.QtTest import QAbstractItemModelTester

from edge_tts import BestSoFar, CandidateScored, DifficultyEstimated, Event, StepTaken, StrategyChosen

# --- what a search has done --------------------------------------------------------------------


def after(*events: Event, generations: int = 16) -> Search:
    search = Search(generations, "#### ")
    for event in events:
        search.take(event)
    return search


def test_samples_go_on_from_those_that_estimated_the_difficulty() -> None:
    search = after(
        StepTaken(0, "1+1=2", False, ("1+1=2",)),
        StepTaken(0, "#### 2", True, ("1+1=2", "#### 2")),
        CandidateScored(0, 0.7),
        DifficultyEstimated(1, 0.7),
        StrategyChosen("weighted:n=2", "best on validation"),
        StepTaken(1, "1+1=3", False, ("1+1=3",)),
        BestSoFar("2", 0.7),
    )
    assert search.candidates == [Candidate(("1+1=2", "#### 2"), True, 0.7), Candidate(("1+1=3",))]
    assert [search.answer(candidate) for candidate in search.candidates] == ["2", None]
    assert (search.difficulty, search.best, search.spent, search.round) == (1, "2", 2, 0)


def test_a_search_over_steps_shows_one_round_at_a_time() -> None:
    search = after(
        StrategyChosen("beam:n=4,m=2", "asked for"),
        StepTaken(0, "a", False, ("a",)),
        StepTaken(1, "b", False, ("b",)),
        CandidateScored(0, 0.2),
        CandidateScored(1, 0.4),
        StepTaken(0, "c", False, ("b", "c")),
    )
    assert search.candidates == [Candidate(("b", "c"))]
    assert (search.round, search.spent) == (2, 4)


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
        StepTaken(0, "#### 2", True, ("<b>2</b>", "#### 2")),
    ):
        model.take(event)
    row = [model.data(model.index(0, column)) for column in range(model.columnCount())]
    assert row == ["1", "<b>2</b>", "2", ""]
    assert tester.model() is model


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

    monkeypatch.setattr("ctypes.CDLL", missing)
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
