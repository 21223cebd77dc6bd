"""The list of earlier questions, to search, show and delete."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QRect, QSignalBlocker, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QFont, QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
)

from edge_desktop.keeper import Keeper
from edge_desktop.parts import label
from edge_desktop.theme import Theme

_ID = Qt.ItemDataRole.UserRole
_ANSWER = Qt.ItemDataRole.UserRole + 1
_TYPING_MS = 120


class HistoryView(QFrame):
    """Lists what a :class:`Keeper` finds."""

    def __init__(self, theme: Theme, keeper: Keeper) -> None:
        super().__init__()
        self.setProperty("card", True)
        self._keeper = keeper
        self._next_row = -1
        """The row to select when the list is refreshed after a deletion; -1 for none."""
        self.search = QLineEdit(placeholderText="Search questions and answers", clearButtonEnabled=True)
        self.search.setAccessibleName("Search the history")
        self.list = QListWidget()
        self.list.setAccessibleName("Earlier questions")
        self.list.setItemDelegate(_Entry(self.list, theme))
        self.list.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.delete = QPushButton("Delete this entry")
        self.delete.setProperty("flat", True)
        self.empty = label("", "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 8)
        layout.addWidget(label("History", bold=True))
        layout.addWidget(self.search)
        layout.addWidget(self.empty, 1, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.delete)
        self._typing = QTimer(self, singleShot=True, interval=_TYPING_MS)
        self._typing.timeout.connect(lambda: keeper.find(self.search.text()))
        self.search.textChanged.connect(self._typing.start)
        self.list.currentItemChanged.connect(self._choose)
        self.delete.clicked.connect(self._delete)
        keeper.found.connect(self._show)
        QShortcut(QKeySequence.StandardKey.Delete, self.list, self._delete).setContext(
            Qt.ShortcutContext.WidgetShortcut
        )
        self._show([])

    def clear_choice(self) -> None:
        """Deselect the entry, because something else is shown."""
        with QSignalBlocker(self.list):
            self.list.setCurrentRow(-1)
        self.delete.setEnabled(False)

    def _show(self, rows: list[tuple[int, str, str | None]]) -> None:
        with QSignalBlocker(self.list):
            self.list.clear()
            for entry, question, answer in rows:
                item = QListWidgetItem(" ".join(question.split())[:300])
                item.setData(_ID, entry)
                item.setData(_ANSWER, answer or "no answer")
                self.list.addItem(item)
        searching = bool(self.search.text().strip())
        self.empty.setText("Nothing found." if searching else "Answered questions are kept here, on this machine.")
        self.empty.setVisible(not rows)
        self.list.setVisible(bool(rows))
        self.delete.setVisible(bool(rows))
        self.delete.setEnabled(False)
        self.list.setCurrentRow(min(self._next_row, len(rows) - 1))
        self._next_row = -1

    def _choose(self, item: QListWidgetItem | None) -> None:
        self.delete.setEnabled(item is not None)
        if item is not None:
            self._keeper.get(item.data(_ID))

    def _delete(self) -> None:
        item = self.list.currentItem()
        if item is not None:
            self._next_row = self.list.currentRow()
            self._keeper.delete(item.data(_ID))


class _Entry(QStyledItemDelegate):
    """Paints a question in at most two lines and its answer below, as plain text."""

    def __init__(self, parent: QListWidget, theme: Theme) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # type: ignore[override]  # noqa: N802
        return QSize(100, 3 * option.fontMetrics.lineSpacing() + 20)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:  # type: ignore[override]
        colours = self._theme.colours
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box: QRect = option.rect.adjusted(0, 2, -4, -2)
        if option.state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.hover))
            painter.drawRoundedRect(box, 7, 7)
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(colours.accent))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, 7, 7)
        inner = box.adjusted(8, 6, -8, -6)
        line = option.fontMetrics.lineSpacing()
        painter.setPen(QColor(colours.text))
        question = QRect(inner.left(), inner.top(), inner.width(), 2 * line)
        # Lines break between words, so two lines hold a little less than twice the width.
        text = option.fontMetrics.elidedText(index.data(), Qt.TextElideMode.ElideRight, int(1.7 * inner.width()))
        painter.setClipRect(question)
        painter.drawText(question, Qt.TextFlag.TextWordWrap | Qt.AlignmentFlag.AlignTop, text)
        painter.setClipping(False)
        bold = QFont(option.font)
        bold.setWeight(QFont.Weight.DemiBold)
        painter.setFont(bold)
        painter.setPen(QColor(colours.accent))
        answer = option.fontMetrics.elidedText(index.data(_ANSWER), Qt.TextElideMode.ElideRight, inner.width())
        painter.drawText(inner.left(), inner.bottom() - option.fontMetrics.descent() + 2, answer)
        painter.restore()
