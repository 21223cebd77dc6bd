"""Small widgets shared by the views. Labels show plain text, so that a model's output is never markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QComboBox, QFrame, QLabel, QSizePolicy, QVBoxLayout, QWidget

from edge_desktop.theme import Colours, Theme

Tone = Literal["", "muted", "accent", "good", "warn", "bad"]


def label(text: str = "", tone: Tone = "", size: float = 1.0, bold: bool = False, wrap: bool = False) -> QLabel:
    """A label of plain text, ``size`` times the normal font size. Text that wraps can be selected."""
    made = QLabel()
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setText(text)
    made.setProperty("tone", tone)
    made.setWordWrap(wrap)
    if wrap:
        made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    font = made.font()
    font.setPointSizeF(font.pointSizeF() * size)
    font.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
    made.setFont(font)
    return made


def set_tone(widget: QLabel, tone: Tone) -> None:
    """Change a label's colour."""
    widget.setProperty("tone", tone)
    widget.style().unpolish(widget)
    widget.style().polish(widget)


def card() -> tuple[QFrame, QVBoxLayout]:
    """A framed surface and its layout."""
    frame = QFrame()
    frame.setProperty("card", True)
    layout = QVBoxLayout(frame)
    layout.setContentsMargins(16, 12, 16, 12)
    layout.setSpacing(8)
    return frame, layout


def fixed_font(like: QFont) -> QFont:
    """The platform's fixed-width font in the size of ``like``, so that equations line up."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(like.pointSizeF())
    return font


class Choice(QComboBox):
    """A combo box that paints its arrow in the theme's colour; a style sheet could only use an image file."""

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().placeholderText(), 1.6))
        x, y = self.width() - 16, self.height() / 2 - 2
        painter.drawPolyline([QPointF(x - 4, y), QPointF(x, y + 4), QPointF(x + 4, y)])


class Bar(QWidget):
    """A thin bar of coloured parts, each a share of the whole width; the rest stays empty."""

    def __init__(self, theme: Theme, height: int, fills: Callable[[Colours], Sequence[str]]) -> None:
        """``height`` is in pixels; ``fills`` gives the colours of the parts."""
        super().__init__()
        self._theme = theme
        self._height = height
        self._fills = fills
        self._shares: Sequence[float] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_shares(self, shares: Sequence[float]) -> None:
        """``shares`` of the width, each in [0, 1], from left to right."""
        self._shares = shares
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(80, self._height)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        whole, radius = QRectF(self.rect()), self._height / 2
        painter.setBrush(QColor(self._theme.colours.hover))
        painter.drawRoundedRect(whole, radius, radius)
        left = 0.0
        for share, colour in zip(self._shares, self._fills(self._theme.colours), strict=False):
            width = min(share * whole.width(), whole.width() - left)
            painter.setBrush(QColor(colour))
            painter.save()
            painter.setClipRect(QRectF(left, 0, width, whole.height()))
            filled = QRectF(0, 0, max(left + width, self._height), whole.height())
            painter.drawRoundedRect(whole if left + width > whole.width() - 1 else filled, radius, radius)
            painter.restore()
            left += width


class Meter(QWidget):
    """A name, a figure below it, and a bar that shows its share of a limit."""

    def __init__(self, theme: Theme, name: str) -> None:
        super().__init__()
        self.figure = label(bold=True)
        self._bar = Bar(theme, 4, lambda colours: (colours.accent,))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for widget in (label(name, "muted", 0.92), self.figure, self._bar):
            layout.addWidget(widget)

    def show_spent(self, figure: str, share: float | None) -> None:
        """``share`` of the limit in [0, 1]; None if there is no limit."""
        self.figure.setText(figure)
        self._bar.show_shares(() if share is None else (min(1.0, share),))
