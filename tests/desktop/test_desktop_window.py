"""The desktop app on a virtual display, with the built-in pack."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from desktop_app import ANSWERED, DESKTOP, QUESTION, application, serve
from edge_desktop.history import Details, History
from edge_desktop.theme import DARK, LIGHT, Theme
from edge_desktop.window import Window
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel
from tiny_model import write_tiny_model

from edge_tts import StepTaken, StrategyChosen
from edge_tts.core import StepValue
from edge_tts.packs.pack import Pack
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.search.strategy import Strategy

BLOCKED_SECONDS = 0.1
"""Longest time that the event loop may be blocked, and that a stop may take."""


@pytest.fixture
def app() -> QApplication:
    return application()


@pytest.fixture
def empty(tmp_path: Path, app: QApplication, pack: Pack) -> Iterator[Window]:
    """A window without a question, which loads nothing."""
    window = Window(Theme(app), tmp_path / "history.sqlite3")
    window.ask.profile.setCurrentText("laptop-cpu")
    window.show()
    yield window
    window.close()


@pytest.fixture
def window(empty: Window) -> Window:
    empty.ask.question.setPlainText(QUESTION)
    serve(empty.ask.solve.isEnabled)
    return empty


def solve(window: Window, strategy: str = "weighted", generations: int = 8) -> float:
    """Ask with the keyboard and wait for the answer. Returns the longest time that the event loop was blocked."""
    window.ask.strategy.setCurrentText(strategy)
    window.ask.generations.setValue(generations)
    QTest.keyClick(window.ask.question, Qt.Key.Key_Return)
    assert window.ask.stop.isEnabled()
    return serve(lambda: not window.ask.stop.isEnabled())


def models() -> list[psutil.Process]:
    """The child processes that hold models."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [child] * ("spawn_main" in " ".join(child.cmdline()))
    return found


def started(window: Window, generations: int = 256) -> None:
    """Start a long search and wait for its first finished candidate."""
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
    drawn = len(search.candidates)  # a vote that is settled draws no more
    assert 0 < drawn <= Strategy.parse(search.strategy, 16).generations
    assert search.difficulty is not None
    assert search.spent == drawn
    history = History(tmp_path / "history.sqlite3")
    (entry,) = history.find()
    kept = history.get(entry[0])
    history.close()
    assert (kept.question, kept.answer, kept.strategy) == (QUESTION, search.best, search.strategy)
    assert kept.steps[-1].startswith("####")
    assert kept.usage.policy_tokens > 0
    assert search.tokens == pytest.approx(kept.usage.generated_tokens, rel=0.15)  # the estimate shown during the search


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
    for memory in (500, 600, 700):  # a different plan each time, so the models are loaded again
        window.ask.memory.setValue(memory)
        serve(lambda m=memory: f"of {m} MB" in window.plan.total.text() and window.ask.solve.isEnabled())  # type: ignore[misc]
        gaps.append(solve(window))
    assert min(gaps) < BLOCKED_SECONDS  # code that blocks the loop would do so each time


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
        assert "it was cancelled" in window.live.answer.note.text()
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
    solve(window)  # with the models loaded in the background
    assert window.live.answer.answer.text() == window.live.model.search.best


def test_a_cap_too_small_is_told_before_anything_is_loaded(empty: Window) -> None:
    serve(lambda: "2,048 MB" in empty.plan.total.text())
    parts = [part.text() for part in empty.plan.parts]
    assert [text.rsplit(" ", 1)[0] for text in parts] == ["Runtime", "Weights", "KV cache", "Buffers", "Verifier"]
    empty.ask.memory.setValue(100)
    serve(lambda: "memory cap of 100 MB" in empty.plan.message.text())
    empty.ask.question.setPlainText(QUESTION)
    QTest.keyClick(empty.ask.question, Qt.Key.Key_Return)
    assert not empty.ask.stop.isEnabled()
    assert not models()
    empty.ask.memory.setValue(330)
    serve(empty.ask.solve.isEnabled)
    assert "330 MB" in empty.plan.total.text()
    assert "to stay below 330 MB" in empty.plan.message.text()


def test_models_load_while_the_user_types_and_one_is_unloaded_before_the_next(window: Window, tmp_path: Path) -> None:
    serve(lambda: window.ask.model_caption.text() == "Model: smol-math is loaded")
    (first,) = models()
    own = write_tiny_model(tmp_path / "own.gguf")
    most = 0

    def is_loaded() -> bool:
        nonlocal most
        most = max(most, len(models()))
        return window.ask.model_caption.text() == "Model: own is loaded"

    window.ask.model.choose(str(own))
    serve(is_loaded)
    assert most == 1
    assert not first.is_running()
    assert "Verifier" not in " ".join(part.text() for part in window.plan.parts)
    again = Window(Theme(application()), tmp_path / "history.sqlite3")  # the choice is remembered
    assert (again.ask.model.currentText(), again.ask.choices.model) == ("own.gguf", str(own))
    again.close()


def test_nothing_is_cut_at_the_least_width(window: Window) -> None:
    window.resize(window.minimumSize())
    window.live.start(16, 125.0, "", True)
    window.live.take(StrategyChosen("adaptive:n=16", "decided after every wave"))
    steps = ("rolls_of_the_baker_who_sells_rolls_in_bags_of_three_in_the_morning = 7",)
    window.live.take(StepTaken(0, steps[0], True, steps, answer="7"))
    details = Details("qwen2.5-coder-1.5b", "program", 0.55, 1, 1, (("7", 1.0),), "Because.", "", ("a note",))
    window.live.finish(replace(ANSWERED, answer="7", steps=steps, scores=(), details=details))
    window.pages.setCurrentWidget(window.live)
    serve(lambda: window.width() == 860)
    for part in window.findChildren(QLabel):
        if part.isVisible() and not part.wordWrap():
            assert part.width() >= part.sizeHint().width(), part.text()
        if part.isVisible():
            inside = part.mapTo(window, part.rect().topRight()).x()
            assert inside < window.width(), part.text()
    for field in (window.ask.deadline, window.ask.memory, window.ask.generations):
        assert field.lineEdit().width() >= field.fontMetrics().horizontalAdvance(field.text()), field.text()


def test_no_limit_is_shown_before_the_profile_is_known(tmp_path: Path, app: QApplication, home: Path) -> None:
    window = Window(Theme(app), tmp_path / "history.sqlite3")
    assert (window.ask.deadline.text(), window.ask.memory.text()) == ("…", "…")
    serve(lambda: window.ask.deadline.text() != "…")
    assert window.ask.deadline.value() >= 20
    assert window.ask.memory.text().endswith(" MB")
    window.close()


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
    with Interpreter(binary=folder / "_internal" / "monty") as carried:
        assert carried.run(["answer = 6 * 7"]).values == (StepValue("answer", "42"),)
    environment = {"HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}  # neither Python nor this project on the path
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
