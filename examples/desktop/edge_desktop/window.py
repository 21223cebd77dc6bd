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
from edge_desktop.engine import LOADING, Engine, Planned, Started
from edge_desktop.fetching import Fetcher
from edge_desktop.history import Answered, Details
from edge_desktop.history_view import HistoryView
from edge_desktop.keeper import Keeper
from edge_desktop.live_view import LiveView
from edge_desktop.model_view import ModelStrip
from edge_desktop.parts import label
from edge_desktop.plan_view import PlanView
from edge_desktop.settings import Settings
from edge_desktop.theme import Theme
from edge_tts import Result
from edge_tts.profiles.loader import names
from edge_tts.search.strategy import KINDS

_TYPING_MS = 150


class Window(QMainWindow):
    """The question at the top, the plan below it, then the running search, an old answer, or a hint."""

    def __init__(self, theme: Theme, history_path: Path, built_in: str | None = None) -> None:
        """What is remembered lies beside the history; ``built_in`` is the folder of the built-in pack where it is not
        in its usual place."""
        super().__init__()
        self.setWindowTitle("Edge Reason")
        self.setMinimumSize(860, 560)
        self.resize(QSize(1180, 830).boundedTo(self.screen().availableSize()))
        self._theme = theme
        self._working = False
        self._planned: Planned | None = None
        self._asked = ""
        self._model = ""
        """The name of the model that answers."""
        self._loading = ""
        """What is loaded or being loaded, in words."""
        self.settings = Settings(history_path.with_name("settings.ini"))
        self.engine = Engine(built_in)
        self.fetcher = Fetcher()
        self.strip = ModelStrip()
        self.banner, self.banner_text = self._make_banner()
        self.keeper = Keeper(history_path)
        self.history = HistoryView(theme, self.keeper)
        self.ask = AskView(names(), KINDS, self.settings.model)
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
        self.engine.offer()
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
        for part in (self.ask, self.strip, self.banner, self.plan):
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
        self.ask.model.chosen.connect(self._choose)
        self.ask.model.refused.connect(self.complain)
        self._replan.timeout.connect(self._make_plan)
        self.strip.wanted.connect(self._fetch)
        self.strip.cancelled.connect(self._cancel_fetch)
        self.fetcher.progressed.connect(self.strip.progress)
        self.fetcher.ended.connect(self._fetched)
        self.keeper.got.connect(self._show_record)
        self.keeper.failed.connect(self.complain)
        self.back.clicked.connect(self._show_search)
        self.theme_button.clicked.connect(self._theme.toggle)
        self._theme.changed.connect(self._name_theme)
        engine = self.engine
        engine.offered.connect(self.ask.model.offer)
        engine.planned.connect(self._show_plan)
        engine.unplannable.connect(self._unplannable)
        engine.loading.connect(self._show_loading)
        engine.loaded.connect(self._show_loaded)
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

    def _show_plan(self, planned: Planned) -> None:
        if planned.reference != self.ask.model.reference:
            return  # the user has chosen another model meanwhile
        self._planned = planned
        if planned.plan is not None:
            self.plan.show_plan(planned.plan)
            self.ask.fill_limits(planned.plan)
        else:
            self.plan.show_message("What this model takes is known once it is on this machine.", bad=False)
        self._name_model()
        if not self.fetcher.is_running:
            self.strip.ask(planned.chosen)
        self._refresh()
        if not self._working:
            question = self.ask.question.toPlainText()
            self.engine.prepare(self.ask.choices, question, bool(question.strip()))

    def _unplannable(self, message: str) -> None:
        self._planned = None
        self._name_model()
        self.plan.show_message(message, bad=True)
        if not self.fetcher.is_running:
            self.strip.hide()
        self._refresh()

    # --- the model -----------------------------------------------------------------------------

    def _choose(self, reference: str) -> None:
        self.settings.model = reference
        self._planned = None
        self.strip.hide()
        self.fetcher.cancel()
        self._refresh()

    def _fetch(self) -> None:
        if self._planned is not None and not self.fetcher.is_running:
            self.banner.hide()
            self.strip.progress(0.0, "preparing the download")
            self.fetcher.start(self._planned.chosen.pack or self._planned.chosen.name)

    def _cancel_fetch(self) -> None:
        self.strip.cancel.setEnabled(False)
        self.fetcher.cancel()

    def _fetched(self, problem: str) -> None:
        self.strip.hide()
        if problem:
            self.complain(problem)
        self.engine.offer()
        self._make_plan()

    def _show_loading(self, fraction: float, what: str) -> None:
        self._loading = f"{what[:1].lower()}{what[1:]}" + (f" {fraction:.0%}" if fraction else "")
        self._name_model()
        if self._working:
            self.live.load(fraction, what)

    def _show_loaded(self, name: str) -> None:
        self._loading = f"{name} is loaded" if name else ""
        self._name_model()

    def _name_model(self) -> None:
        """Say which model it is where the user named none, and whether it is loaded."""
        chosen = self._planned.chosen if self._planned is not None else None
        named = chosen.name if chosen is not None and chosen.reason else ""
        self.ask.show_model(self._loading or named, chosen.reason if chosen is not None else "")

    # --- solving -------------------------------------------------------------------------------

    def _solve(self) -> None:
        if self._working or not self._is_ready:
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
        self._model = started.model
        self.plan.show_plan(started.plan)
        self.live.start(started.generations, started.deadline_s, started.marker, started.scores)

    def _answered(self, result: Result) -> None:
        search = self.live.model.search
        voters, samples = (search.voters, search.ended) if search.votes_are_counted else (0, 0)
        details = Details.of(result, self._model, voters, samples)
        answered = Answered.of(self._asked.strip(), result, details)
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

    @property
    def _is_ready(self) -> bool:
        """Whether there is a plan whose model can be loaded."""
        return self._planned is not None and self._planned.chosen.is_here

    def _refresh(self) -> None:
        self.ask.set_state(self._working, self._is_ready)
        self.back.setVisible(self._working)

    def _name_theme(self) -> None:
        self.theme_button.setText("Light colours" if self._theme.dark else "Dark colours")

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        self.hide()
        self.fetcher.close()
        self.engine.close()
        self.keeper.close()
        event.accept()
