"""The main window: creates the parts and connects them."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from edge_desktop.answer_view import AnswerView
from edge_desktop.ask_view import EXAMPLE, AskView
from edge_desktop.engine import LOADING, Engine, Started
from edge_desktop.history import Answered
from edge_desktop.history_view import HistoryView
from edge_desktop.keeper import Keeper
from edge_desktop.live_view import LiveView
from edge_desktop.parts import label
from edge_desktop.plan_view import PlanView
from edge_desktop.theme import Theme
from edge_tts import Plan, Result
from edge_tts.profiles.loader import names
from edge_tts.search.strategy import KINDS

_TYPING_MS = 150


class Window(QMainWindow):
    """The question at the top, the plan below it, then the running search, an old answer, or a hint."""

    def __init__(self, theme: Theme, history_path: Path, pack: str | None = None) -> None:
        super().__init__()
        self.setWindowTitle("Edge Reason")
        self.setMinimumSize(860, 560)
        self.resize(QSize(1180, 830).boundedTo(self.screen().availableSize()))
        self._theme = theme
        self._working = False
        self._plan: Plan | None = None
        self._asked = ""
        self.engine = Engine(pack)
        self.banner, self.banner_text = self._make_banner()
        self.keeper = Keeper(history_path)
        self.history = HistoryView(theme, self.keeper)
        self.ask = AskView(names(), KINDS)
        self.plan = PlanView(theme)
        self.live = LiveView(theme)
        self.record = AnswerView(with_question=True)
        self.back = QPushButton("Back to the search")
        self.back.setProperty("flat", True)
        self.theme_button = QPushButton()
        self.theme_button.setProperty("flat", True)
        self.pages = QStackedWidget()
        self._lay_out()
        self._replan = QTimer(self, singleShot=True, interval=_TYPING_MS)
        self._connect()
        self._name_theme()
        self._refresh()
        self._make_plan()
        self.keeper.find("")
        self.ask.question.setFocus()

    # --- parts ---------------------------------------------------------------------------------

    def _make_banner(self) -> tuple[QFrame, QLabel]:
        banner = QFrame()
        banner.setObjectName("banner")
        text = label("", wrap=True)
        close = QPushButton("Dismiss")
        close.setProperty("flat", True)
        close.clicked.connect(banner.hide)
        row = QHBoxLayout(banner)
        row.setContentsMargins(16, 8, 8, 8)
        row.addWidget(text, 1)
        row.addWidget(close)
        banner.hide()
        return banner, text

    def _lay_out(self) -> None:
        hint = QWidget()
        column = QVBoxLayout(hint)
        example = QPushButton("Try an example")
        example.clicked.connect(lambda: self.ask.question.setPlainText(EXAMPLE))
        column.addStretch(2)
        for widget in (
            label("A small model, thinking a problem through on this machine", size=1.35, bold=True),
            label("Ask above and watch every candidate grow. Nothing you type leaves this machine.", "muted"),
            example,
        ):
            column.addWidget(widget, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)
        column.setSpacing(12)
        recorded = QWidget()
        column = QVBoxLayout(recorded)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.record, 1)
        column.addWidget(self.back, 0, Qt.AlignmentFlag.AlignLeft)
        for page in (hint, self.live, recorded):
            self.pages.addWidget(page)
        self._recorded = recorded
        left, right = QWidget(), QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(12, 12, 0, 12)
        column.addWidget(self.history, 1)
        column.addWidget(self.theme_button, 0, Qt.AlignmentFlag.AlignLeft)
        column = QVBoxLayout(right)
        column.setContentsMargins(6, 12, 12, 12)
        column.setSpacing(12)
        for part in (self.ask, self.banner, self.plan):
            column.addWidget(part)
        column.addWidget(self.pages, 1)
        splitter = QSplitter(Qt.Orientation.Horizontal, childrenCollapsible=False)
        left.setMinimumWidth(190)
        splitter.addWidget(left)
        splitter.addWidget(right)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([250, 930])
        self.setCentralWidget(splitter)

    def _connect(self) -> None:
        self.ask.asked.connect(self._solve)
        self.ask.stopped.connect(self._stop)
        self.ask.changed.connect(self._plan_again)
        self.ask.question.textChanged.connect(self._plan_again)
        self._replan.timeout.connect(self._make_plan)
        self.keeper.got.connect(self._show_record)
        self.keeper.failed.connect(self.complain)
        self.back.clicked.connect(self._show_search)
        self.theme_button.clicked.connect(self._theme.toggle)
        self._theme.changed.connect(self._name_theme)
        engine = self.engine
        engine.planned.connect(self._planned)
        engine.unplannable.connect(self._unplannable)
        engine.loading.connect(self.live.load)
        engine.started.connect(self._started)
        engine.stepped.connect(self.live.take)
        engine.answered.connect(self._answered)
        engine.failed.connect(self._failed)
        QShortcut(QKeySequence(Qt.Key.Key_Escape), self, self._stop)
        QShortcut(QKeySequence.StandardKey.Find, self, self.history.search.setFocus)

    # --- planning ------------------------------------------------------------------------------

    def _plan_again(self) -> None:
        self._refresh()
        self._replan.start()

    def _make_plan(self) -> None:
        if not self._working:
            self.engine.plan(self.ask.choices, self.ask.question.toPlainText())

    def _planned(self, plan: Plan) -> None:
        self._plan = plan
        self.plan.show_plan(plan)
        self.ask.fill_limits(plan)
        self._refresh()

    def _unplannable(self, message: str) -> None:
        self._plan = None
        self.plan.show_message(message, bad=True)
        self._refresh()

    # --- solving -------------------------------------------------------------------------------

    def _solve(self) -> None:
        if self._working or self._plan is None:
            return
        self._working = True
        self._asked = self.ask.question.toPlainText()
        self.banner.hide()
        self.live.load(0.0, LOADING)
        self._show_search()
        self._refresh()
        self.engine.solve(self._asked, self.ask.choices)

    def _stop(self) -> None:
        if self._working:
            self.ask.stop.setEnabled(False)
            self.engine.stop()

    def _started(self, started: Started) -> None:
        self.plan.show_plan(started.plan)
        self.live.start(started.generations, started.deadline_s, started.marker)

    def _answered(self, result: Result) -> None:
        answered = Answered.of(self._asked.strip(), result)
        self.live.finish(answered)
        self.keeper.add(answered)
        self._rest()

    def _failed(self, message: str) -> None:
        self.live.finish(None)
        self.pages.setCurrentIndex(0)
        if message:
            self.complain(message)
        self._rest()

    def _rest(self) -> None:
        self._working = False
        self._refresh()
        self._make_plan()

    # --- showing -------------------------------------------------------------------------------

    def complain(self, message: str) -> None:
        """Show an error message in the banner."""
        self.banner_text.setText(message[:1].upper() + message[1:])
        self.banner.show()

    def _show_record(self, answered: Answered) -> None:
        self.record.show_answered(answered)
        self.back.setVisible(self._working)
        self.pages.setCurrentWidget(self._recorded)

    def _show_search(self) -> None:
        self.history.clear_choice()
        self.pages.setCurrentWidget(self.live)

    def _refresh(self) -> None:
        self.ask.set_state(self._working, self._plan is not None)
        self.back.setVisible(self._working)

    def _name_theme(self) -> None:
        self.theme_button.setText("Light colours" if self._theme.dark else "Dark colours")

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        self.hide()
        self.engine.close()
        self.keeper.close()
        event.accept()
