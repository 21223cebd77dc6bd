"""The view of a running search: its decisions, its cost so far, and its candidates."""

from __future__ import annotations

import time

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QHBoxLayout, QWidget

from edge_desktop.answer_view import AnswerView
from edge_desktop.candidates import CandidateModel, CandidateTable
from edge_desktop.history import Answered
from edge_desktop.parts import Meter, card, label
from edge_desktop.search import Search
from edge_desktop.theme import Theme
from edge_desktop.units import duration

_CLOCK_MS = 100


class LiveView(QWidget):
    """Shows one search after another from their events."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self.model = CandidateModel()
        self.answer = AnswerView()
        self.difficulty = label(bold=True)
        self.strategy = label(bold=True)
        self.reason = label("", "muted", 0.95, wrap=True)
        self.generations = Meter(theme, "Samples")
        self.tokens = Meter(theme, "Tokens written")
        self.seconds = Meter(theme, "Time")
        self.table = CandidateTable(theme, self.model)
        self._began = 0.0
        self._deadline_s = 1.0
        self._clock = QTimer(self, interval=_CLOCK_MS)
        self._clock.timeout.connect(self._tick)
        frame, column = card()
        facts = QHBoxLayout()
        facts.setSpacing(18)
        for widget in (self.difficulty, self.strategy):
            facts.addWidget(widget)
        facts.addStretch()
        meters = QHBoxLayout()
        meters.setSpacing(14)
        for meter, stretch in ((self.generations, 5), (self.tokens, 3), (self.seconds, 4)):
            meters.addWidget(meter, stretch)
        column.addLayout(facts)
        column.addWidget(self.reason)
        column.addLayout(meters)
        column.addWidget(self.table, 1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        layout.addWidget(frame, 3)
        layout.addWidget(self.answer, 2)

    def load(self, fraction: float, what: str) -> None:
        """Show that the models are being loaded; ``fraction`` in [0, 1] is done."""
        self.model.start(Search(0, ""))
        self.answer.wait()
        self.seconds.show_spent("", None)
        self._show()
        self.strategy.setText(f"{what} ({fraction:.0%})" if fraction else what)

    def start(self, generations: int, deadline_s: float, marker: str, scores: bool) -> None:
        """Begin to show a search, with a column for scores where there are ``scores``."""
        self.model.start(Search(generations, marker))
        self.table.show_scores(scores)
        self.answer.wait()
        self._began, self._deadline_s = time.monotonic(), deadline_s
        self._clock.start()
        self._show()
        self._tick()

    def take(self, event: object) -> None:
        """Show one event."""
        search = self.model.search
        before = search.best, search.confidence
        self.model.take(event)
        if search.best is not None and (search.best, search.confidence) != before:
            self.answer.show_best(search.best, search.confidence)
            self.table.viewport().update()
        if search.explanation:
            self.answer.show_explanation(search.explanation)
        self._show()

    def finish(self, answered: Answered | None) -> None:
        """End the search; ``answered`` is None if it failed."""
        self._clock.stop()
        if answered is None:
            return
        self.answer.show_answered(answered)
        self.table.scrollToTop()
        self.tokens.show_spent(f"{answered.usage.generated_tokens:,}", None)
        self._show_seconds(answered.usage.seconds)

    def _show(self) -> None:
        search = self.model.search
        known = search.difficulty is not None
        self.difficulty.setText(f"Difficulty {(search.difficulty or 0) + 1} of 5" if known else "")
        self.difficulty.setVisible(known)
        rounds = f", round {search.round}" if search.round else ""
        self.strategy.setText(f"{search.strategy}{rounds}" if search.strategy else "Sampling …")
        told = search.decision or search.reason[:1].upper() + search.reason[1:]
        self.reason.setText(told)
        self.reason.setVisible(bool(told))
        share = search.spent / search.generations if search.generations else 0.0
        self.generations.show_spent(f"{search.spent} of {search.generations}" if search.generations else "", share)
        self.tokens.show_spent(f"≈ {search.tokens:,}" if search.generations else "", None)

    def _tick(self) -> None:
        self._show_seconds(time.monotonic() - self._began)

    def _show_seconds(self, seconds: float) -> None:
        self.seconds.show_spent(f"{seconds:.1f} s of {duration(self._deadline_s)}", seconds / self._deadline_s)
