"""One answer with its steps and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from edge_desktop.history import Answered
from edge_desktop.parts import Tone, fixed_font, label, set_tone
from edge_desktop.units import flops
from edge_tts.search.wording import Level, cost, in_format, level, percent, sureness, why_stopped

_TONES: Mapping[Level, Tone] = MappingProxyType({"sure": "good", "likely": "accent", "unsure": "warn", "guess": "bad"})
"""As the terminal colours answers: green is for what is sure."""
_OTHERS = 4
"""Other answers of a vote that are shown."""
_BREAK = "\N{ZERO WIDTH SPACE}"


class AnswerView(QFrame):
    """Shows the best answer so far while a search runs, then the final one, or an answer from the history."""

    def __init__(self, with_question: bool = False) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._with_question = with_question
        self.heading = label("", "muted", 0.95)
        self.question = label("", wrap=True, size=1.08)
        self.answer = label("", size=2.0, bold=True, wrap=True)
        self.sureness = label("", bold=True, wrap=True)
        self.note = label("", "muted", wrap=True)
        self.explanation = label("", wrap=True)
        self.remarks = label("", "warn", 0.95, wrap=True)
        self.facts = label("", "muted", 0.95, wrap=True)
        self._steps = QWidget()
        self._step_labels: list[QLabel] = []
        self._grid = QGridLayout(self._steps)
        self._grid.setContentsMargins(0, 6, 0, 6)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(5)
        self._grid.setColumnStretch(0, 1)
        self.copy = QPushButton("Copy the solution")
        self.copy.setProperty("flat", True)
        self.copy.clicked.connect(self._copy)
        self._shown: tuple[str, ...] = ()
        """The steps."""
        self._texts = (self.sureness, self.note, self.explanation, self.remarks, self.facts)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(16, 14, 16, 14)
        column.setSpacing(7)
        for widget in (self.heading, self.question, self.answer, self.sureness, self.note, self._steps):
            column.addWidget(widget)
        for widget in (self.explanation, self.remarks, self.facts):
            column.addWidget(widget)
        column.addWidget(self.copy, 0, Qt.AlignmentFlag.AlignLeft)
        column.addStretch()
        self.question.setVisible(with_question)
        scroll = QScrollArea(widgetResizable=True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(1, 1, 1, 1)
        layout.addWidget(scroll)

    def wait(self) -> None:
        """Show that there is no answer yet."""
        self.heading.setText("Best answer so far")
        self._show_answer("…", None, muted=True)
        for text in self._texts[1:]:
            _set(text, "")
        self._show_steps((), ())

    def show_best(self, answer: str, confidence: float | None) -> None:
        """Show the best answer so far; ``confidence`` in [0, 1] is the probability that it is right."""
        self._show_answer(answer, confidence)

    def show_explanation(self, text: str) -> None:
        """Show an explanation in words, as far as it has come."""
        _set(self.explanation, text.strip())

    def show_answered(self, answered: Answered) -> None:
        """Show a final answer."""
        details = answered.details
        self.heading.setText(f"Asked {answered.when}" if self._with_question else "Answer")
        self.question.setText(answered.question)
        if answered.answer is None:
            self._show_answer("No answer", None, muted=True)
        else:
            self._show_answer(answered.answer, details.confidence)
        _set(self.note, _note(answered))
        self._show_steps(answered.steps or details.partial, answered.scores, muted=answered.answer is None)
        self.show_explanation(details.explanation)
        _set(self.remarks, "\n".join(filter(None, (details.escalation, *details.notes))))
        _set(self.facts, _facts(answered))

    def _show_answer(self, text: str, confidence: float | None, muted: bool = False) -> None:
        self.answer.setText(text)
        tone: Tone = "muted" if muted else "" if confidence is None else _TONES[level(confidence)]
        set_tone(self.answer, tone)
        set_tone(self.sureness, tone)
        words = "" if confidence is None else sureness(confidence)
        _set(self.sureness, words[:1].upper() + words[1:])

    def _show_steps(self, steps: tuple[str, ...], scores: tuple[float, ...], muted: bool = False) -> None:
        for old in self._step_labels:
            self._grid.removeWidget(old)
            old.hide()
            old.deleteLater()
        self._step_labels.clear()
        self._shown = steps
        self._steps.setVisible(bool(steps))
        self.copy.setVisible(bool(steps))
        for row, step in enumerate(steps):
            text = label(breakable(step), "muted" if muted else "", wrap=True)
            text.setFont(fixed_font(text.font()))
            if text.text() != step:  # what a copy of it would bring along
                text.setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
            text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
            self._grid.addWidget(text, row, 0)
            self._step_labels.append(text)
            if row < len(scores):
                score = label(f"{scores[row]:.2f}", "muted", 0.92)
                self._step_labels.append(score)
                self._grid.addWidget(score, row, 1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText("\n".join(self._shown))


def breakable(step: str) -> str:
    """``step`` with places to break inside long names of programs, which a label would cut."""
    return step.replace("_", f"_{_BREAK}")


def votes(answered: Answered) -> tuple[str, ...]:
    """The vote in lines: "3 of 4 samples agree", then the other answers; shares where samples do not count alike."""
    details, answer = answered.details, answered.answer
    if answer is None:
        return ()
    voters, all_ = details.voters, details.samples
    share = next((part for name, part in details.votes if name == answer), answered.support)
    counts = [part * voters for _, part in details.votes]
    if not voters or not counts or any(abs(count - round(count)) > 0.02 * voters for count in counts):
        lines = [f"{percent(answered.support)} of the vote."] if answered.support else []
        return (*lines, *(f"{percent(part)}: {name}" for name, part in _others(answered)))
    who = "samples" if voters == all_ else "samples with an answer"
    if voters == 1:
        first = "One sample, so there was no vote." if all_ == 1 else "Only one sample reached an answer."
    else:
        agree = round(share * voters)
        first = f"{agree} of {voters} {who} {'agrees' if agree == 1 else 'agree'}."
    silent = f"{all_ - voters} ended without an answer." if all_ > voters else ""
    others = [f"{round(part * voters)} for {name}" for name, part in _others(answered)]
    return tuple(filter(None, (first, silent, *others)))


def _others(answered: Answered) -> list[tuple[str, float]]:
    return [vote for vote in answered.details.votes if vote[0] != answered.answer][:_OTHERS]


def _note(answered: Answered) -> str:
    ended = f"The search stopped because {why_stopped(answered.stop_reason)}."
    if answered.answer is None:
        longest = " Below is the longest attempt." if answered.details.partial else ""
        return f"No sample finished. {ended} Allow more time or more samples.{longest}"
    return "\n".join((*votes(answered), ended))


def _facts(answered: Answered) -> str:
    usage, details = answered.usage, answered.details
    lines = [
        cost(usage, details.samples, answered.strategy),
        ", ".join(filter(None, (details.model, in_format(details.format)))),
        f"{answered.strategy}: {answered.reason}",
    ]
    if answered.difficulty is not None:
        lines.append(f"Difficulty {answered.difficulty + 1} of 5")
    lines.append(
        f"{flops(usage.policy_flops + usage.verifier_flops)}, {usage.peak_memory_mb:,.0f} MB of memory at most"
    )
    return "\n".join(filter(None, lines))


def _set(widget: QLabel, text: str) -> None:
    widget.setText(text)
    widget.setVisible(bool(text))
