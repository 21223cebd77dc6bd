"""The memory plan, shown before anything is loaded."""

from __future__ import annotations

from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout

from edge_desktop.parts import Bar, label, set_tone
from edge_desktop.theme import Theme
from edge_desktop.units import duration
from edge_tts import Plan

PARTS = ("Runtime", "Weights", "KV cache", "Buffers", "Verifier")


class PlanView(QFrame):
    """A bar of the memory that each part needs, against the cap; or a message if the cap is too small."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._theme = theme
        self.total = label(bold=True)
        self.time = label("", "muted", 0.95)
        self.message = label("", "muted", 0.95, wrap=True)
        self.parts = [label("", "muted", 0.92) for _ in PARTS]
        self._dots = [label("●", "", 0.92) for _ in PARTS]
        self._bar = Bar(theme, 8, lambda colours: colours.parts)
        top = QHBoxLayout()
        top.addWidget(label("Memory plan", "muted"))
        top.addSpacing(8)
        top.addWidget(self.total)
        top.addStretch()
        top.addWidget(self.time)
        self._legend = QHBoxLayout()
        self._legend.setSpacing(5)
        for dot, part in zip(self._dots, self.parts, strict=True):
            self._legend.addWidget(dot)
            self._legend.addWidget(part)
            self._legend.addSpacing(12)
        self._legend.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 11, 16, 11)
        layout.setSpacing(7)
        layout.addLayout(top)
        layout.addWidget(self._bar)
        layout.addLayout(self._legend)
        layout.addWidget(self.message)
        theme.changed.connect(self._paint_legend)
        self._paint_legend()
        self.show_message("Looking at this machine …", bad=False)

    def show_plan(self, plan: Plan) -> None:
        """Show a plan that fits."""
        self.total.setText(f"{plan.memory.total:,.0f} of {plan.memory_cap_mb:,.0f} MB")
        self.time.setText(f"{plan.generations} samples in about {duration(plan.seconds)} ({plan.profile})")
        for part, name, size in zip(self.parts, PARTS, _sizes(plan), strict=True):
            part.setText(f"{name} {size:,.0f}" if size else "")
        notes = "; ".join(plan.notes)
        self.message.setText(notes[:1].upper() + notes[1:])
        set_tone(self.message, "warn")
        self._show_details(True)
        self.message.setVisible(bool(notes))
        self._bar.show_shares([size / plan.memory_cap_mb for size in _sizes(plan)])

    def show_message(self, text: str, bad: bool) -> None:
        """Show a message instead of a plan; ``bad`` if no plan is possible."""
        self.total.setText("nothing fits" if bad else "")
        self.time.setText("")
        self.message.setText(text[:1].upper() + text[1:])
        set_tone(self.message, "bad" if bad else "muted")
        self._show_details(False)
        self.message.show()

    def _show_details(self, shown: bool) -> None:
        self._bar.setVisible(shown)
        for dot, part in zip(self._dots, self.parts, strict=True):
            dot.setVisible(shown and bool(part.text()))
            part.setVisible(shown and bool(part.text()))

    def _paint_legend(self) -> None:
        for dot, colour in zip(self._dots, self._theme.colours.parts, strict=True):
            dot.setStyleSheet(f"color: {colour}")


def _sizes(plan: Plan) -> tuple[float, ...]:
    """MiB of each of ``PARTS``."""
    memory = plan.memory
    verifier = memory.verifier_weights + memory.verifier_arena
    return memory.process, memory.weights, memory.kv, memory.compute + memory.sampling, verifier
