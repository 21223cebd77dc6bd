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
from edge_desktop.history import History
from edge_desktop.theme import DARK, LIGHT, Theme
from edge_desktop.window import Window
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel

from edge_tts.packs.pack import Pack
from edge_tts.search.strategy import Strategy

BLOCKED_SECONDS = 0.1
"""Longest time that the event loop may be blocked, and that a stop may take."""


@pytest.fixture
def app() -> QApplication:
    return application()


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
        serve(lambda m=memory: f"{m} MB" in window.plan.total.text() and window.ask.solve.isEnabled())  # type: ignore[misc]
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
    solve(window)  # with the models loaded in the background
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
