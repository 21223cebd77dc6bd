"""The colours and style sheet of the app, dark and light."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

LEAST_POINTS = 10.0
"""Smallest size of the normal font, in points."""


@dataclass(frozen=True)
class Colours:
    """One palette. Every text colour has a contrast of at least 4.5 to 1 on its backgrounds."""

    window: str
    surface: str
    hover: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    good: str
    warn: str
    bad: str
    parts: tuple[str, ...]
    """Colours of the memory plan's parts."""


LIGHT = Colours(
    window="#f3f4f7",
    surface="#ffffff",
    hover="#eceff5",
    border="#d9dde5",
    text="#1b2130",
    muted="#5c6675",
    accent="#3552c8",
    on_accent="#ffffff",
    good="#1f7a3d",
    warn="#8a5a00",
    bad="#b3261e",
    parts=("#9aa5b8", "#3552c8", "#2a9d9d", "#d98e2b", "#8a4fbf"),
)
DARK = Colours(
    window="#14161b",
    surface="#1c1f26",
    hover="#272b35",
    border="#313743",
    text="#e7eaf0",
    muted="#9aa4b4",
    accent="#8fa8ff",
    on_accent="#10131a",
    good="#63cf8c",
    warn="#e5b654",
    bad="#ff8a80",
    parts=("#667085", "#7c97ff", "#45c0bd", "#e5a54b", "#b98be6"),
)


class Theme(QObject):
    """The palette in use: the desktop's at first, then whichever ``toggle`` selects."""

    changed = Signal()

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._app = app
        app.setStyle("Fusion")
        font = app.font()
        font.setPointSizeF(max(LEAST_POINTS, font.pointSizeF()))
        app.setFont(font)
        dark = QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._follow)
        self._use(DARK if dark else LIGHT)

    @property
    def dark(self) -> bool:
        return self.colours is DARK

    def toggle(self) -> None:
        """Switch between dark and light."""
        self._use(LIGHT if self.dark else DARK)

    def _follow(self, scheme: Qt.ColorScheme) -> None:
        self._use(DARK if scheme == Qt.ColorScheme.Dark else LIGHT)

    def _use(self, colours: Colours) -> None:
        self.colours = colours
        self._app.setPalette(_palette(colours))
        self._app.setStyleSheet(_style_sheet(colours))
        self.changed.emit()


def _palette(colours: Colours) -> QPalette:
    role = QPalette.ColorRole
    palette = QPalette()
    for where, colour in {
        role.Window: colours.window,
        role.Base: colours.surface,
        role.AlternateBase: colours.hover,
        role.Button: colours.surface,
        role.Text: colours.text,
        role.WindowText: colours.text,
        role.ButtonText: colours.text,
        role.PlaceholderText: colours.muted,
        role.Highlight: colours.accent,
        role.HighlightedText: colours.on_accent,
        role.ToolTipBase: colours.surface,
        role.ToolTipText: colours.text,
    }.items():
        palette.setColor(where, QColor(colour))
    for where in (role.Text, role.WindowText, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, where, QColor(colours.muted))
    return palette


def _style_sheet(c: Colours) -> str:
    return f"""
    QFrame[card="true"] {{ background: {c.surface}; border: 1px solid {c.border}; border-radius: 10px; }}
    QFrame#strip {{ background: {c.surface}; border: 1px solid {c.accent}; border-radius: 10px; }}
    QFrame#banner {{ background: {c.surface}; border: 1px solid {c.bad}; border-radius: 10px; }}
    QLabel[tone="muted"] {{ color: {c.muted}; }}
    QLabel[tone="accent"] {{ color: {c.accent}; }}
    QLabel[tone="good"] {{ color: {c.good}; }}
    QLabel[tone="warn"] {{ color: {c.warn}; }}
    QLabel[tone="bad"] {{ color: {c.bad}; }}
    QPlainTextEdit, QLineEdit, QComboBox, QAbstractSpinBox {{
        background: {c.surface}; color: {c.text}; border: 1px solid {c.border}; border-radius: 7px; padding: 5px 8px;
        selection-background-color: {c.accent}; selection-color: {c.on_accent};
    }}
    QComboBox::drop-down {{ border: none; width: 20px; }}
    QAbstractSpinBox::up-button, QAbstractSpinBox::down-button {{ width: 0; border: none; }}
    QAbstractSpinBox QLineEdit {{ border: none; padding: 0; background: transparent; }}
    QProgressBar {{ background: {c.hover}; border: none; border-radius: 3px; }}
    QProgressBar::chunk {{ background: {c.accent}; border-radius: 3px; }}
    QCheckBox {{ color: {c.text}; spacing: 6px; }}
    QCheckBox::indicator {{ border: 1px solid {c.muted}; border-radius: 4px; width: 13px; height: 13px; }}
    QCheckBox::indicator:checked {{ background: {c.accent}; border-color: {c.accent}; }}
    QCheckBox:focus {{ color: {c.accent}; }}
    QCheckBox:focus::indicator {{ border: 2px solid {c.accent}; width: 11px; height: 11px; }}
    QPlainTextEdit:focus, QLineEdit:focus, QComboBox:focus, QAbstractSpinBox:focus {{ border-color: {c.accent}; }}
    QComboBox:disabled, QAbstractSpinBox:disabled, QPlainTextEdit[readOnly="true"] {{ color: {c.muted}; }}
    QComboBox QAbstractItemView {{
        background: {c.surface}; border: 1px solid {c.border};
        selection-background-color: {c.hover}; selection-color: {c.text};
    }}
    QPushButton {{
        background: {c.surface}; color: {c.text}; border: 1px solid {c.border}; border-radius: 7px; padding: 6px 14px;
    }}
    QPushButton:hover {{ background: {c.hover}; }}
    QPushButton:focus {{ border-color: {c.accent}; }}
    QPushButton:disabled {{ color: {c.muted}; background: {c.window}; }}
    QPushButton#solve {{ background: {c.accent}; color: {c.on_accent}; border-color: {c.accent}; font-weight: 600; }}
    QPushButton#solve:disabled {{ background: {c.hover}; color: {c.muted}; border-color: {c.border}; }}
    QPushButton#stop:enabled {{ color: {c.bad}; border-color: {c.bad}; font-weight: 600; }}
    QPushButton#solve:focus, QPushButton#stop:focus {{ border: 2px solid {c.text}; padding: 5px 13px; }}
    QPushButton[flat="true"] {{ border: none; background: transparent; color: {c.accent}; padding: 4px 6px; }}
    QPushButton[flat="true"]:disabled {{ color: {c.muted}; }}
    QPushButton[flat="true"]:hover, QPushButton[flat="true"]:focus {{ background: {c.hover}; }}
    QListView, QTableView {{
        background: transparent; border: 1px solid transparent; border-radius: 7px; outline: none; color: {c.text};
    }}
    QListView:focus, QTableView:focus {{ border-color: {c.accent}; }}
    QHeaderView {{ background: transparent; border: none; }}
    QHeaderView::section {{
        background: transparent; color: {c.muted}; border: none; border-bottom: 1px solid {c.border};
        padding: 0 0 0 4px;
    }}
    QScrollArea, QScrollArea > QWidget > QWidget {{ background: transparent; border: none; }}
    QScrollArea:focus {{ border: 1px solid {c.accent}; border-radius: 10px; }}
    QSplitter::handle {{ background: transparent; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 2px; }}
    QScrollBar::handle:vertical {{ background: {c.border}; border-radius: 3px; min-height: 28px; }}
    QScrollBar::handle:vertical:hover {{ background: {c.muted}; }}
    QScrollBar::add-line, QScrollBar::sub-line, QScrollBar::add-page, QScrollBar::sub-page {{
        background: transparent; height: 0; width: 0;
    }}
    QToolTip {{ background: {c.surface}; color: {c.text}; border: 1px solid {c.border}; padding: 4px; }}
    """
