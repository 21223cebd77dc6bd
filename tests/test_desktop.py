"""The desktop app on a virtual display, with the real pack."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edge_tts import BestSoFar, CandidateScored, DifficultyEstimated, Event, StepTaken, StrategyChosen, Usage
from edge_tts.packs.pack import Pack
from edge_tts.search.strategy import Strategy

DESKTOP = Path(__file__).parent.parent / "examples" / "desktop"
sys.path.insert(0, str(DESKTOP))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
for module in ("PySide6.QtWidgets", "PySide6.QtTest"):
    pytest.importorskip(module, reason="PySide6 or a system library it needs is missing", exc_type=ImportError)

from edge_desktop.candidates import CandidateModel  # noqa: E402
from edge_desktop.history import Answered, History, HistoryError  # noqa: E402
from edge_desktop.search import Candidate, Search  # noqa: E402
from edge_desktop.theme import DARK, LIGHT, Theme  # noqa: E402
from edge_desktop.window import Window  # noqa: E402
from PySide6.QtCore import QEventLoop, Qt, QTimer  # noqa: E402
from PySide6.QtGui import QColor  # noqa: E402
from PySide6.QtTest import QAbstractItemModelTester, QTest  # noqa: E402
from PySide6.QtWidgets import QApplication, QLabel  # noqa: E402

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
ANSWERED = Answered(
    "2026-01-02T03:04:05+00:00",
    QUESTION,
    "76",
    "complete",
    "weighted:n=16",
    "asked for",
    1,
    0.94,
    ("12*8=96", "96-20=76", "#### 76"),
    (0.3, 0.5, 0.6),
    Usage(policy_tokens=120, generated_tokens=370, seconds=1.9, peak_memory_mb=425.0),
)
BLOCKED_SECONDS = 0.1
"""What the event loop may be kept waiting, and a stop may take."""


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


def test_a_damaged_history_is_told_and_solving_goes_on(tmp_path: Path, app: QApplication, home: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(HistoryError, match="not a database"):
        History(path)
    window = Window(Theme(app), path)
    serve(lambda: not window.banner.isHidden())
    assert "Solving works without it" in window.banner_text.text()
    window.close()
    assert path.read_bytes().startswith(b"this is no database")


# --- the window --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def app() -> QApplication:
    existing = QApplication.instance()
    return existing if isinstance(existing, QApplication) else QApplication([])


def unserved() -> float:
    """Seconds so far in which this thread was ready to run and a busy machine did not run it; 0 where nobody counts."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def serve(until: Callable[[], bool], seconds: float = 60.0) -> float:
    """Run the event loop until ``until`` holds; the longest time, in seconds, that it was kept from its timer by
    anything but other processes."""
    loop, timer = QEventLoop(), QTimer(interval=2)
    longest, last, queued, ends = 0.0, time.monotonic(), unserved(), time.monotonic() + seconds

    def tick() -> None:
        nonlocal longest, last, queued
        before, last = last, time.monotonic()
        queued_before, queued = queued, unserved()
        longest = max(longest, last - before - (queued - queued_before))
        if until() or last > ends:
            loop.quit()

    timer.timeout.connect(tick)
    timer.start()
    loop.exec()
    assert until(), f"still waiting after {seconds:g} s"
    return longest


@pytest.fixture
def window(tmp_path: Path, app: QApplication, pack: Pack) -> Iterator[Window]:
    window = Window(Theme(app), tmp_path / "history.sqlite3")
    window.ask.profile.setCurrentText("laptop-cpu")
    window.ask.question.setPlainText(QUESTION)
    window.show()
    serve(window.ask.solve.isEnabled)
    yield window
    window.close()


def solve(window: Window, strategy: str = "weighted", generations: int = 8) -> float:
    """Ask by the keyboard and wait for the end; the longest gap of the event loop."""
    window.ask.strategy.setCurrentText(strategy)
    window.ask.generations.setValue(generations)
    QTest.keyClick(window.ask.question, Qt.Key.Key_Return)
    assert window.ask.stop.isEnabled()
    return serve(lambda: not window.ask.stop.isEnabled())


def models() -> list[psutil.Process]:
    """The processes that hold models for this one."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [child] * ("spawn_main" in " ".join(child.cmdline()))
    return found


def started(window: Window, generations: int = 256) -> None:
    """Ask for more than can be drawn soon, and wait for the first finished candidate."""
    window.ask.deadline.setValue(60)
    window.ask.strategy.setCurrentText("majority")
    window.ask.generations.setValue(generations)
    window.ask.solve.click()
    serve(lambda: window.live.model.search.best is not None)


def test_a_question_is_solved_and_kept(window: Window, tmp_path: Path) -> None:
    solve(window, "auto", 16)
    serve(lambda: window.history.list.count() == 1)
    search = window.live.model.search
    assert window.banner.isHidden(), window.banner_text.text()
    assert window.live.answer.answer.text() == search.best
    chosen = Strategy.parse(search.strategy, 16).generations
    assert len(search.candidates) == chosen
    assert search.difficulty is not None
    assert search.spent == chosen
    history = History(tmp_path / "history.sqlite3")
    (entry,) = history.find()
    kept = history.get(entry[0])
    history.close()
    assert (kept.question, kept.answer, kept.strategy) == (QUESTION, search.best, search.strategy)
    assert kept.steps[-1].startswith("####")
    assert kept.usage.policy_tokens > 0
    assert search.tokens == pytest.approx(kept.usage.generated_tokens, rel=0.15)  # the estimate shown meanwhile


@pytest.mark.parametrize("strategy", ["greedy", "beam", "revise"])
def test_other_strategies_are_shown(window: Window, strategy: str) -> None:
    solve(window, strategy)
    search = window.live.model.search
    assert window.banner.isHidden(), window.banner_text.text()
    assert search.strategy.startswith(strategy)
    assert search.candidates
    assert 1 <= search.spent <= 8


def test_the_event_loop_is_never_blocked(window: Window) -> None:
    gaps = []
    for memory in (500, 600, 700):  # each is another plan, so the models are loaded again
        window.ask.memory.setValue(memory)
        serve(lambda m=memory: f"{m} MB" in window.plan.total.text() and window.ask.solve.isEnabled())  # type: ignore[misc]
        gaps.append(solve(window))
    assert min(gaps) < BLOCKED_SECONDS  # what blocks would do so each time


def test_escape_stops_at_once_and_keeps_the_best(window: Window) -> None:
    times = []
    for _ in range(3):
        started(window)
        best = window.live.model.search.best
        begun = time.monotonic()
        QTest.keyClick(window, Qt.Key.Key_Escape)
        serve(window.ask.solve.isEnabled)
        times.append(time.monotonic() - begun)
        assert window.live.answer.answer.text() == best
        assert "You stopped" in window.live.answer.note.text()
    assert min(times) < BLOCKED_SECONDS
    serve(lambda: window.history.list.count() == 3)


def test_a_stop_while_loading_waits_for_nothing(window: Window) -> None:
    window.ask.solve.click()
    serve(lambda: True)
    begun = time.monotonic()
    window.ask.stop.click()
    assert window.ask.solve.isEnabled()
    assert time.monotonic() - begun < BLOCKED_SECONDS
    assert window.banner.isHidden()
    solve(window)  # with what was loaded meanwhile
    assert window.live.answer.answer.text() == window.live.model.search.best


def test_a_cap_too_small_is_told_before_anything_is_loaded(window: Window) -> None:
    assert "2048 MB" in window.plan.total.text()
    parts = [part.text() for part in window.plan.parts]
    assert [text.rsplit(" ", 1)[0] for text in parts] == ["Runtime", "Weights", "KV cache", "Buffers", "Verifier"]
    window.ask.memory.setValue(100)
    serve(lambda: not window.ask.solve.isEnabled())
    assert "memory cap of 100 MB" in window.plan.message.text()
    QTest.keyClick(window.ask.question, Qt.Key.Key_Return)
    assert not window.ask.stop.isEnabled()
    assert not models()
    window.ask.memory.setValue(330)
    serve(window.ask.solve.isEnabled)
    assert "330 MB" in window.plan.total.text()
    assert "to stay below 330 MB" in window.plan.message.text()


def test_the_limits_are_the_profiles_until_they_are_set(window: Window) -> None:
    window.ask.profile.setCurrentText("phone")
    serve(lambda: "512 MB" in window.plan.total.text())
    assert (window.ask.memory.value(), window.ask.deadline.value()) == (512, 20.0)


def test_a_crash_of_the_models_is_a_calm_message(window: Window) -> None:
    started(window)
    (process,) = models()
    process.kill()
    serve(lambda: not window.ask.stop.isEnabled())
    assert "SIGKILL" in window.banner_text.text()
    assert "Traceback" not in window.banner_text.text()
    solve(window)
    assert window.banner.isHidden()
    assert window.live.answer.answer.text() == window.live.model.search.best


def test_closing_while_solving_ends_everything(window: Window) -> None:
    started(window)
    begun = time.monotonic()
    window.close()
    assert time.monotonic() - begun < 1.0
    assert not models()


def test_closing_while_loading_ends_everything(window: Window) -> None:
    window.ask.solve.click()
    serve(lambda: bool(models()))
    begun = time.monotonic()
    window.close()
    assert time.monotonic() - begun < 1.0
    assert not models()


def test_history_is_listed_shown_and_deleted(window: Window, tmp_path: Path, app: QApplication) -> None:
    window.keeper.add(replace(ANSWERED, question="<b>first</b>"))
    window.keeper.add(replace(ANSWERED, question="second", answer=None, steps=(), scores=()))
    window.close()
    again = Window(Theme(app), tmp_path / "history.sqlite3")
    again.show()
    rows = again.history.list
    serve(lambda: rows.count() == 2)
    again.history.search.setText("first")
    serve(lambda: rows.count() == 1)
    rows.setCurrentRow(0)
    serve(again.record.isVisible)
    assert again.record.question.text() == "<b>first</b>"
    assert again.record.answer.text() == "76"
    again.activateWindow()
    rows.setFocus()
    QTest.keyClick(rows, Qt.Key.Key_Delete)
    serve(lambda: rows.count() == 0)
    again.history.search.clear()
    serve(lambda: rows.count() == 1)
    rows.setCurrentRow(0)
    serve(lambda: again.record.answer.text() == "No answer")
    again.history.delete.click()
    serve(lambda: rows.count() == 0)
    again.close()


def test_text_of_a_model_is_plain(window: Window) -> None:
    window.keeper.add(replace(ANSWERED, answer="<img src=x>", steps=("<h1>1</h1>",)))
    serve(lambda: window.history.list.count() == 1)
    window.history.list.setCurrentRow(0)
    serve(window.record.isVisible)
    labels = window.findChildren(QLabel)
    assert {"<img src=x>", "<h1>1</h1>"} <= {label.text() for label in labels}
    assert {label.textFormat() for label in labels} == {Qt.TextFormat.PlainText}


def test_colours_can_be_read_in_both_themes(window: Window) -> None:
    def luminance(colour: str) -> float:
        parts = QColor(colour).getRgbF()[:3]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for c in (LIGHT, DARK):
        for text in (c.text, c.muted, c.accent, c.good, c.warn, c.bad):
            assert contrast(text, c.surface) >= 4.5
            assert contrast(text, c.window) >= 4.5
        assert contrast(c.on_accent, c.accent) >= 4.5
        before = window.grab().toImage()
        window.theme_button.click()
        assert window.grab().toImage() != before


def test_the_program_starts_and_ends(tmp_path: Path, home: Path) -> None:
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, str(DESKTOP / "main.py"), "--exit-after-start"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "window visible\n", "")
    if sys.platform == "linux":
        assert (tmp_path / "edge-reason-desktop" / "history.sqlite3").exists()


@pytest.mark.skipif("EDGE_REASON_FREEZE" not in os.environ, reason="takes minutes; EDGE_REASON_FREEZE=1 runs it")
def test_the_frozen_app_starts_by_itself(tmp_path: Path, home: Path) -> None:
    folders = ["--distpath", str(tmp_path / "dist"), "--workpath", str(tmp_path / "build")]
    subprocess.run([sys.executable, "-m", "PyInstaller", *folders, str(DESKTOP / "edge-reason.spec")], check=True)
    (folder,) = (tmp_path / "dist").iterdir()
    assert (folder / "_internal" / "pack" / "policy.gguf").exists()
    environment = {"HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}  # no Python, and nothing of this project
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        with subprocess.Popen(
            [folder / folder.name, "--exit-after-start"], stdout=subprocess.PIPE, text=True, env=environment
        ) as app:
            assert app.stdout is not None
            assert app.stdout.readline() == "window visible\n"
            seconds.append(time.monotonic() - begun)
        assert app.returncode == 0
    assert min(seconds) < 3.0
