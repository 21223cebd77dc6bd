"""The question, the strategy and the limits of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QKeyEvent, QValidator
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QDoubleSpinBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QPlainTextEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from edge_desktop.model_view import ModelBox
from edge_desktop.parts import Choice, label
from edge_desktop.units import duration, seconds_of
from edge_tts import Plan
from edge_tts.search.call import Format

EXAMPLE = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
DETECTED = "this machine"
LONGEST_S = 86_400.0
_LINES = 3


@dataclass(frozen=True)
class Choices:
    """The settings beside the question."""

    model: str
    """A reference of :mod:`edge_desktop.models`."""
    profile: str | None
    """None detects this machine."""
    strategy: str
    generations: int
    memory_mb: float | None
    deadline_s: float | None
    """None takes what the plan has by itself, as it does for ``memory_mb``."""
    format: Format = "auto"
    explain: bool = False


class QuestionBox(QPlainTextEdit):
    """A text box where Enter submits and Shift+Enter starts a new line."""

    entered = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        plain = not event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain:
            self.entered.emit()
        else:
            super().keyPressEvent(event)


class DurationBox(QDoubleSpinBox):
    """A field for seconds that shows and reads "45 s" and "2 min 5 s"."""

    def textFromValue(self, value: float) -> str:  # noqa: N802
        return duration(value)

    def valueFromText(self, text: str) -> float:  # noqa: N802
        found = seconds_of(text)
        return self.value() if found is None or text == duration(self.value()) else found

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        state = QValidator.State.Intermediate if seconds_of(text) is None else QValidator.State.Acceptable
        return state, text, position


class AskView(QFrame):
    """Emits ``asked``, ``stopped``, and ``changed`` when a setting changes."""

    asked = Signal()
    stopped = Signal()
    changed = Signal()

    def __init__(self, profiles: tuple[str, ...], strategies: tuple[str, ...], model: str) -> None:
        """``model`` is the reference of the one that is chosen at first."""
        super().__init__()
        self.setProperty("card", True)
        self._set: set[QWidget] = set()
        """The limits that the user has set."""
        self.model = ModelBox(model)
        self.question = QuestionBox(placeholderText="Ask a word problem, for example: " + EXAMPLE)
        self.question.setAccessibleName("Question")
        self.question.setTabChangesFocus(True)
        self.question.setFixedHeight(_LINES * self.question.fontMetrics().lineSpacing() + 22)
        self.solve = QPushButton("Solve")
        self.stop = QPushButton("Stop")
        self.strategy = Choice()
        self.strategy.addItems(["auto", *strategies])
        self.format = Choice()
        self.format.addItems(get_args(Format))
        self.format.setToolTip("In words, or as a program that is run; auto takes what suits question and model.")
        self.explain = QCheckBox("Explain")
        self.explain.setToolTip("Have the model explain its answer in a few sentences; this takes more time.")
        self.generations = QSpinBox(minimum=1, maximum=256, value=16)
        self.deadline = DurationBox(minimum=0.5, maximum=LONGEST_S, decimals=1)
        self.memory = QSpinBox(minimum=50, maximum=1_000_000, singleStep=50, suffix=" MB")
        self.memory.setGroupSeparatorShown(True)
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
        for limit in (self.deadline, self.memory):  # before what reads the choices
            limit.valueChanged.connect(lambda _, limit=limit: self._set.add(limit))
        for spin in (self.generations, self.deadline, self.memory):
            spin.valueChanged.connect(self.changed)
        for combo in (self.strategy, self.format):
            combo.currentTextChanged.connect(self.changed)
        self.profile.currentTextChanged.connect(self._reset)
        self.model.chosen.connect(self._renew_deadline)

    def _options(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(3)
        self.model_caption = label("Model", "muted", 0.9)
        # Row, column and columns of each; a caption is above its widget.
        places: tuple[tuple[str, QWidget, int, int, int], ...] = (
            ("Model", self.model, 0, 0, 2),
            ("Strategy", self.strategy, 0, 2, 1),
            ("Format", self.format, 0, 3, 2),
            ("Samples", self.generations, 2, 0, 1),
            ("Deadline", self.deadline, 2, 1, 1),
            ("Memory cap", self.memory, 2, 2, 1),
            ("Profile", self.profile, 2, 3, 1),
        )
        for name, widget, row, column, columns in places:
            caption = self.model_caption if name == "Model" else label(name, "muted", 0.9)
            caption.setBuddy(widget)
            widget.setAccessibleName(name)
            grid.addWidget(caption, row, column, 1, columns, Qt.AlignmentFlag.AlignBottom)
            grid.addWidget(widget, row + 1, column, 1, columns)
            widget.setFixedHeight(self.fontMetrics().lineSpacing() + 16)
            if isinstance(widget, QAbstractSpinBox):
                widget.setKeyboardTracking(False)
                widget.lineEdit().setTextMargins(6, 0, 0, 0)
        grid.addWidget(self.explain, 3, 4)
        grid.setRowMinimumHeight(2, self.fontMetrics().lineSpacing() + 8)
        for column in range(4):
            grid.setColumnStretch(column, 1)
        return grid

    @property
    def choices(self) -> Choices:
        """The settings as they are now; limits that the user has not set are None."""
        profile = self.profile.currentText()
        format: Format = next(known for known in get_args(Format) if known == self.format.currentText())
        return Choices(
            self.model.reference,
            None if profile == DETECTED else profile,
            self.strategy.currentText(),
            self.generations.value(),
            float(self.memory.value()) if self.memory in self._set else None,
            self.deadline.value() if self.deadline in self._set else None,
            format,
            self.explain.isChecked(),
        )

    def fill_limits(self, plan: Plan) -> None:
        """Show the limits of ``plan`` where the user has set none."""
        for limit, value in ((self.memory, int(plan.memory_cap_mb)), (self.deadline, plan.deadline_s)):
            if limit not in self._set:
                with QSignalBlocker(limit):
                    limit.setSpecialValueText("")
                    limit.setValue(value)  # type: ignore[arg-type]

    def show_model(self, text: str, reason: str) -> None:
        """Say beside "Model" which one it is or what is being loaded, and on hovering why it is this one."""
        self.model_caption.setText(f"Model: {text}" if text else "Model")
        self.model.setToolTip(reason[:1].upper() + reason[1:])

    def _reset(self) -> None:
        """Forget the limits that were set for another profile."""
        self._set.clear()
        self.changed.emit()

    def _renew_deadline(self) -> None:
        """Forget the deadline that was set for another model."""
        self._set.discard(self.deadline)
        self.changed.emit()

    def set_state(self, working: bool, ready: bool) -> None:
        """Enable what can be used now: ``working`` while a search runs, ``ready`` if there is a plan."""
        self.solve.setEnabled(ready and not working and bool(self.question.toPlainText().strip()))
        self.stop.setEnabled(working)
        limits = (self.generations, self.deadline, self.memory, self.profile)
        for widget in (self.model, self.strategy, self.format, self.explain, *limits):
            widget.setEnabled(not working)
