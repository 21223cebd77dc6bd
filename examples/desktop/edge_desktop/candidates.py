"""The table of a search's candidates."""

from __future__ import annotations

from html import escape
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QToolTip,
)

from edge_desktop.parts import fixed_font
from edge_desktop.search import Candidate, Search
from edge_desktop.theme import Theme

HEADINGS = ("", "Steps", "Answer", "Score")
NUMBER, STEPS, ANSWER, SCORE = range(4)
_SEPARATOR = " → "
_READING_MS = 600_000
"""How long a candidate's steps stay when a key called them up; leaving the table hides them."""
_Index = QModelIndex | QPersistentModelIndex


class CandidateModel(QAbstractTableModel):
    """One row for each candidate of ``search``."""

    def __init__(self) -> None:
        super().__init__()
        self.search = Search(0, "")
        self._rows = 0

    def start(self, search: Search) -> None:
        """Show a new search."""
        self.beginResetModel()
        self.search, self._rows = search, 0
        self.endResetModel()

    def take(self, event: object) -> None:
        """Apply one event of the search."""
        row = self.search.take(event)
        count = len(self.search.candidates)
        if count < self._rows or (row is None and count):
            self.beginResetModel()
            self._rows = count
            self.endResetModel()
        elif count > self._rows:
            self.beginInsertRows(QModelIndex(), self._rows, count - 1)
            self._rows = count
            self.endInsertRows()
        elif row is not None:
            self.dataChanged.emit(self.index(row, 0), self.index(row, len(HEADINGS) - 1))

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802
        return 0 if parent.isValid() else self._rows

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802
        return len(HEADINGS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return HEADINGS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.ToolTipRole:
            candidate = self.search.candidates[index.row()]
            doubts = f"does not hold: {'; '.join(candidate.doubts)}" if candidate.doubts else ""
            lines = escape("\n".join((*candidate.steps, *filter(None, (candidate.error, doubts)))))
            return f'<p style="white-space: pre-wrap">{lines}</p>' if index.column() == STEPS else None
        if role not in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return None
        candidate, column = self.search.candidates[index.row()], index.column()
        if column == NUMBER:
            return str(index.row() + 1)
        if column == STEPS:
            steps = " ".join(_SEPARATOR.join(self.search.work(candidate)).split())
            return candidate.error or steps
        if column == ANSWER:
            return "none" if candidate.failed else candidate.answer or ""
        return "" if candidate.score is None else f"{candidate.score:.2f}"

    def candidate(self, index: _Index) -> Candidate:
        return self.search.candidates[index.row()]

    def agrees(self, index: _Index) -> bool:
        """Whether the row's answer is the best answer so far."""
        answer = self.candidate(index).answer
        return answer is not None and answer == self.search.best


class CandidateTable(QTableView):
    """Shows a :class:`CandidateModel`, and scrolls along with new rows if its end is visible.

    All steps of a candidate are read by pointing at it, or with the arrow keys.
    """

    def __init__(self, theme: Theme, model: CandidateModel) -> None:
        super().__init__()
        self.setModel(model)
        self.setAccessibleName("Candidates")
        self.setItemDelegate(_Cell(self, theme, model))
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().lineSpacing() + 9)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setFixedHeight(self.fontMetrics().lineSpacing() + 10)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(STEPS, QHeaderView.ResizeMode.Stretch)
        width = self.fontMetrics().horizontalAdvance("0")
        for column, characters in ((NUMBER, 6), (ANSWER, 11), (SCORE, 13)):
            header.resizeSection(column, characters * width)
        model.rowsInserted.connect(self._follow)

    def show_scores(self, shown: bool) -> None:
        """Show the column of scores, or leave its room to the steps."""
        self.setColumnHidden(SCORE, not shown)

    def currentChanged(self, current: _Index, previous: _Index) -> None:  # noqa: N802
        super().currentChanged(current, previous)
        if self.hasFocus():
            below = self.viewport().mapToGlobal(self.visualRect(current).bottomLeft())
            steps = self.model().index(current.row(), STEPS).data(Qt.ItemDataRole.ToolTipRole) or ""
            QToolTip.showText(below, steps, self, self.rect(), _READING_MS)

    def _follow(self) -> None:
        bar = self.verticalScrollBar()
        if bar.value() == bar.maximum():
            self.scrollToBottom()


class _Cell(QStyledItemDelegate):
    """Paints a cell: plain text, a dot for the state, or a bar for the score."""

    def __init__(self, parent: CandidateTable, theme: Theme, model: CandidateModel) -> None:
        super().__init__(parent)
        self._theme = theme
        self._model = model

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        colours, text = self._theme.colours, str(index.data())
        candidate, agrees = self._model.candidate(index), self._model.agrees(index)
        box: QRect = option.rect
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(colours.accent))
            painter.drawRoundedRect(box.adjusted(1, 1, -1, -1), 5, 5)
        if index.column() == NUMBER:
            dot = colours.muted if candidate.failed else colours.accent
            self._dot(painter, box, dot, candidate.finished and not candidate.failed)
            painter.setPen(QColor(colours.muted))
            painter.drawText(box.adjusted(22, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, text)
        elif index.column() == SCORE:
            self._score(painter, box, candidate.score, agrees)
        else:
            painter.setFont(fixed_font(option.font))
            bright = agrees or (index.column() == STEPS and not candidate.finished)
            painter.setPen(QColor(colours.text if bright else colours.muted))
            inner = box.adjusted(8, 0, -8, 0)
            latest = index.column() == STEPS and not candidate.error
            end = Qt.TextElideMode.ElideLeft if latest else Qt.TextElideMode.ElideRight
            shown = painter.fontMetrics().elidedText(text, end, inner.width())
            painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, shown)
        painter.restore()

    def _dot(self, painter: QPainter, box: QRect, colour: str, filled: bool) -> None:
        painter.setPen(QColor(colour))
        painter.setBrush(QColor(colour) if filled else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(QRectF(box.left() + 7, box.center().y() - 3, 7, 7))

    def _score(self, painter: QPainter, box: QRect, score: float | None, agrees: bool) -> None:
        if score is None:
            return
        colours = self._theme.colours
        figure = f"{score:.2f}"
        painter.setPen(QColor(colours.text))
        painter.drawText(box.adjusted(8, 0, -8, 0), Qt.AlignmentFlag.AlignVCenter, figure)
        left = box.left() + 8 + painter.fontMetrics().horizontalAdvance(figure) + 8
        track = QRectF(left, box.center().y() - 2, max(0, box.right() - 8 - left), 5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.hover))
        painter.drawRoundedRect(track, 2.5, 2.5)
        track.setWidth(track.width() * score)
        painter.setBrush(QColor(colours.accent if agrees else colours.muted))
        painter.drawRoundedRect(track, 2.5, 2.5)
