"""The question, the strategy and the limits of a search."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QSignalBlocker, Qt, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
)

from edge_desktop.parts import label
from edge_tts import Plan

EXAMPLE = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
DETECTED = "this machine"
_LINES = 3


@dataclass(frozen=True)
class Choices:
    """The settings beside the question."""

    profile: str | None
    """None detects this machine."""
    strategy: str
    generations: int
    memory_mb: float | None
    deadline_s: float | None
    """None takes the profile's value, as it does for ``memory_mb``."""


class QuestionBox(QPlainTextEdit):
    """A text box where Enter submits and Shift+Enter starts a new line."""

    entered = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        plain = not event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain:
            self.entered.emit()
        else:
            super().keyPressEvent(event)


class Choice(QComboBox):
    """A combo box that paints its arrow in the theme's colour; a style sheet could only use an image file."""

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().placeholderText(), 1.6))
        x, y = self.width() - 16, self.height() / 2 - 2
        painter.drawPolyline([QPointF(x - 4, y), QPointF(x, y + 4), QPointF(x + 4, y)])


class AskView(QFrame):
    """Emits ``asked``, ``stopped``, and ``changed`` when a setting changes."""

    asked = Signal()
    stopped = Signal()
    changed = Signal()

    def __init__(self, profiles: tuple[str, ...], strategies: tuple[str, ...]) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._limits_of: str | None = None
        """The profile whose limits are shown, edited or not; None before the first plan."""
        self.question = QuestionBox(placeholderText="Ask a word problem, for example: " + EXAMPLE)
        self.question.setAccessibleName("Question")
        self.question.setTabChangesFocus(True)
        self.question.setFixedHeight(_LINES * self.question.fontMetrics().lineSpacing() + 22)
        self.solve = QPushButton("Solve")
        self.stop = QPushButton("Stop")
        self.strategy = Choice()
        self.strategy.addItems(["auto", *strategies])
        self.generations = QSpinBox(minimum=1, maximum=256, value=16)
        self.deadline = QDoubleSpinBox(minimum=0.5, maximum=600, decimals=1, suffix=" s")
        self.memory = QSpinBox(minimum=50, maximum=1_000_000, singleStep=50, suffix=" MB")
        for limit in (self.deadline, self.memory):
            limit.setSpecialValueText("…")  # instead of the least value, until the profile's is known
        self.profile = Choice()
        self.profile.addItems([DETECTED, *profiles])
        buttons = QVBoxLayout()
        for button, name, key in ((self.solve, "solve", "Enter"), (self.stop, "stop", "Esc")):
            button.setObjectName(name)
            button.setToolTip(key)
            button.setMinimumWidth(96)
            buttons.addWidget(button)
        buttons.addStretch()
        top = QHBoxLayout()
        top.addWidget(self.question, 1)
        top.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 12)
        layout.setSpacing(10)
        layout.addLayout(top)
        layout.addLayout(self._options())
        self.question.entered.connect(self.solve.click)
        self.solve.clicked.connect(self.asked)
        self.stop.clicked.connect(self.stopped)
        for spin in (self.generations, self.deadline, self.memory):
            spin.valueChanged.connect(self.changed)
        for combo in (self.strategy, self.profile):
            combo.currentTextChanged.connect(self.changed)

    def _options(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(14)
        for name, widget in (
            ("Strategy", self.strategy),
            ("Generations", self.generations),
            ("Deadline", self.deadline),
            ("Memory cap", self.memory),
            ("Profile", self.profile),
        ):
            column = QVBoxLayout()
            column.setSpacing(3)
            caption = label(name, "muted", 0.9)
            caption.setBuddy(widget)
            widget.setAccessibleName(name)
            column.addWidget(caption)
            column.addWidget(widget)
            row.addLayout(column, 1)
            widget.setFixedHeight(self.fontMetrics().lineSpacing() + 16)
            if isinstance(widget, QAbstractSpinBox):
                widget.setKeyboardTracking(False)
                widget.lineEdit().setTextMargins(6, 0, 0, 0)
        return row

    @property
    def choices(self) -> Choices:
        """The settings as they are now; the limits are None until ``fill_limits`` has shown the profile's."""
        profile = self.profile.currentText()
        filled = self._limits_of == profile
        return Choices(
            None if profile == DETECTED else profile,
            self.strategy.currentText(),
            self.generations.value(),
            float(self.memory.value()) if filled else None,
            self.deadline.value() if filled else None,
        )

    def fill_limits(self, plan: Plan) -> None:
        """Show the limits of ``plan`` when the profile has changed; keeps the user's edits otherwise."""
        if self._limits_of == self.profile.currentText():
            return
        self._limits_of = self.profile.currentText()
        with QSignalBlocker(self.memory), QSignalBlocker(self.deadline):
            for limit in (self.deadline, self.memory):
                limit.setSpecialValueText("")
            self.memory.setValue(int(plan.memory_cap_mb))
            self.deadline.setValue(plan.deadline_s)

    def set_state(self, working: bool, ready: bool) -> None:
        """Enable what can be used now: ``working`` while a search runs, ``ready`` if there is a plan."""
        self.solve.setEnabled(ready and not working and bool(self.question.toPlainText().strip()))
        self.stop.setEnabled(working)
        for widget in (self.strategy, self.generations, self.deadline, self.memory, self.profile):
            widget.setEnabled(not working)
