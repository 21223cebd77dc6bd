"""The desktop app without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desktop_app import ANSWERED, application, serve
from edge_desktop.theme import Theme
from edge_desktop.window import Window
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QToolTip, QWidget

from edge_tts import StepTaken, StrategyChosen
from edge_tts.packs.pack import Pack


@pytest.fixture
def window(tmp_path: Path, pack: Pack) -> Iterator[Window]:
    """A window that shows a search which has ended, and one entry of the history."""
    window = Window(Theme(application()), tmp_path / "history.sqlite3")
    window.ask.profile.setCurrentText("laptop-cpu")
    window.live.start(2, 30.0, "#### ", scores=False)
    for event in (
        StrategyChosen("majority:n=2", "asked for"),
        StepTaken(0, "1+1=2", False, ("1+1=2",)),
        StepTaken(0, "#### 2", True, ("1+1=2", "#### 2"), answer="2"),
        StepTaken(1, "#### 3", True, ("#### 3",), answer="3"),
    ):
        window.live.take(event)
    window.live.finish(ANSWERED)
    window.pages.setCurrentWidget(window.live)
    window.keeper.add(ANSWERED)
    window.show()
    window.activateWindow()
    serve(lambda: window.history.list.count() == 1)
    yield window
    window.close()


def picture(widget: QWidget) -> QImage:
    """The widget with what is around it, since a frame may show where the focus is."""
    QApplication.processEvents()
    around = widget.parentWidget()
    assert around is not None
    return around.grab().toImage()


def test_tab_reaches_everything_and_shows_where_it_is(window: Window) -> None:
    window.ask.question.setFocus()
    reached: list[QWidget] = []
    while (focused := QApplication.focusWidget()) not in reached:
        assert focused is not None
        reached.append(focused)
        with_focus = picture(focused)
        QTest.keyClick(focused, Qt.Key.Key_Tab)
        assert picture(focused) != with_focus, f"{focused} does not show that it has the focus"
    ask = window.ask
    choices = {ask.model, ask.strategy, ask.format, ask.explain, ask.generations, ask.deadline, ask.memory, ask.profile}
    others = {ask.question, window.history.search, window.history.list, window.live.table, window.theme_button}
    assert choices | others | {window.live.answer.copy} <= set(reached)


def test_the_arrow_keys_read_the_candidates(window: Window) -> None:
    window.live.table.setFocus(Qt.FocusReason.TabFocusReason)
    assert "1+1=2\n#### 2" in QToolTip.text()
    QTest.keyClick(window.live.table, Qt.Key.Key_Down)
    assert "#### 3" in QToolTip.text()
