"""One answer with its steps and its cost."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from edge_desktop.history import Answered
from edge_desktop.parts import fixed_font, label, set_tone
from edge_desktop.units import duration, flops

_STOPPED = {
    "complete": "The search was completed.",
    "decided": "The vote was settled early.",
    "deadline": "The search stopped at the deadline.",
    "cancelled": "You stopped the search.",
}


class AnswerView(QFrame):
    """Shows the best answer so far while a search runs, then the final one, or an answer from the history."""

    def __init__(self, with_question: bool = False) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._with_question = with_question
        self.heading = label("", "muted", 0.95)
        self.question = label("", wrap=True, size=1.08)
        self.answer = label("", size=2.0, bold=True, wrap=True)
        self.note = label("", "muted", wrap=True)
        self.facts = label("", "muted", 0.95, wrap=True)
        self._steps = QWidget()
        self._step_labels: list[QLabel] = []
        self._grid = QGridLayout(self._steps)
        self._grid.setContentsMargins(0, 6, 0, 6)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(5)
        self._grid.setColumnStretch(0, 1)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(16, 14, 16, 14)
        column.setSpacing(7)
        for widget in (self.heading, self.question, self.answer, self.note, self._steps, self.facts):
            column.addWidget(widget)
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
        self._show_answer("…", muted=True)
        self.note.setText("")
        self._show_steps((), ())
        self.facts.setText("")

    def show_best(self, answer: str) -> None:
        """Show the best answer so far."""
        self._show_answer(answer)

    def show_answered(self, answered: Answered) -> None:
        """Show a final answer."""
        self.heading.setText(f"Asked {answered.when}" if self._with_question else "Answer")
        self.question.setText(answered.question)
        none = answered.answer is None
        self._show_answer(answered.answer if answered.answer is not None else "No answer", muted=none)
        self.note.setText(_note(answered))
        self._show_steps(answered.steps, answered.scores)
        self.facts.setText(_facts(answered))

    def _show_answer(self, text: str, muted: bool = False) -> None:
        self.answer.setText(text)
        set_tone(self.answer, "muted" if muted else "good")

    def _show_steps(self, steps: tuple[str, ...], scores: tuple[float, ...]) -> None:
        for old in self._step_labels:
            self._grid.removeWidget(old)
            old.hide()
            old.deleteLater()
        self._step_labels.clear()
        for row, step in enumerate(steps):
            text = label(step, wrap=True)
            text.setFont(fixed_font(text.font()))
            text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
            self._grid.addWidget(text, row, 0)
            self._step_labels.append(text)
            if row < len(scores):
                score = label(f"{scores[row]:.2f}", "muted", 0.92)
                self._step_labels.append(score)
                self._grid.addWidget(score, row, 1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


def _note(answered: Answered) -> str:
    ended = _STOPPED.get(answered.stop_reason, f"The search stopped: {answered.stop_reason}.")
    if answered.answer is None:
        return f"No candidate reached an answer. {ended} Allow more time or more generations."
    return f"{ended} {answered.support:.0%} of the vote." if answered.support else ended


def _facts(answered: Answered) -> str:
    usage = answered.usage
    lines = [f"{answered.strategy}: {answered.reason}"]
    if answered.difficulty is not None:
        lines.append(f"Difficulty {answered.difficulty + 1} of 5")
    lines.append(
        f"{duration(usage.seconds)}, {usage.policy_tokens:,} policy and {usage.verifier_tokens:,} verifier tokens "
        f"({usage.generated_tokens:,} generated), {flops(usage.policy_flops + usage.verifier_flops)}, "
        f"{usage.peak_memory_mb:,.0f} MB at most"
    )
    return "\n".join(lines)
