"""Choosing a model, and the strip that asks before one is downloaded and shows how that goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
)

from edge_desktop.models import AUTOMATIC, BUILT_IN, Chosen, is_file, is_own, reference_of
from edge_desktop.parts import Choice, label
from edge_desktop.units import file_size
from edge_tts import EdgeError
from edge_tts.packs.offers import Offer

_LEAST_CHARACTERS = 14
_HEADING = "\0"
"""Data of a line that is no model."""
_FILE, _NAME = "\0file", "\0name"
"""Data of the lines that ask for another model."""


class ModelBox(Choice):
    """The models: what is on this machine first, then downloads, then a file of the user's or a hub id."""

    chosen = Signal(str)
    """The reference that the user chose."""
    refused = Signal(str)
    """Why what the user typed is no model."""

    def __init__(self, reference: str) -> None:
        super().__init__()
        self.reference = reference
        self._own = reference if is_own(reference) else ""
        """The GGUF or hub id that was chosen last."""
        self._offers: Sequence[Offer] = ()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LEAST_CHARACTERS)
        self.activated.connect(self._activated)
        self.offer(())

    def offer(self, offers: Sequence[Offer]) -> None:
        """List ``offers``."""
        self._offers = offers
        with QSignalBlocker(self):
            self.clear()
            self.addItem("Best that fits", AUTOMATIC)
            if self._own:
                self._add(Path(self._own).name if is_file(self._own) else self._own, self._own, self._own)
            for offer in offers:
                if offer.is_here:
                    name = f"{offer.name} (built in, tiny)" if offer.name == BUILT_IN else offer.name
                    self._add(name, offer.name, f"{file_size(offer.size)}, on this machine")
            known = {offer.name for offer in offers}
            if self.reference not in {AUTOMATIC, self._own, *known}:
                self._add(self.reference, self.reference, "")  # until the models are listed, or not listed any more
            downloads = [offer for offer in offers if not offer.is_here]
            if downloads:
                self._head("To download")
            for offer in downloads:
                self._add(f"{offer.name}, {file_size(offer.size)}", offer.name, "not on this machine")
            self.insertSeparator(self.count())
            self.addItem("Choose a GGUF file …", _FILE)
            self.addItem("Enter a name or a hub id …", _NAME)
            self.setCurrentIndex(max(0, self.findData(self.reference)))
        self.view().setMinimumWidth(self.view().sizeHintForColumn(0) + 24)

    def choose(self, reference: str) -> None:
        """Choose ``reference``, as if the user had."""
        if is_own(reference):
            self._own = reference
        self.reference = reference
        self.offer(self._offers)
        self.chosen.emit(reference)

    def _add(self, name: str, reference: str, tip: str) -> None:
        self.addItem(name, reference)
        self.setItemData(self.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)

    def _head(self, text: str) -> None:
        """Add a line that cannot be chosen."""
        self.insertSeparator(self.count())
        self.addItem(text, _HEADING)
        model = self.model()
        if isinstance(model, QStandardItemModel):
            model.item(self.count() - 1).setEnabled(False)

    def _activated(self, index: int) -> None:
        reference = self.itemData(index)
        if reference == _FILE:
            folder = str(Path(self._own).parent) if is_file(self._own) else ""
            file, _ = QFileDialog.getOpenFileName(
                self.window(), "Choose a model", folder, "Models (*.gguf);;All files (*)"
            )
            reference = file or None
        elif reference == _NAME:
            reference = self._typed()
        if reference not in (None, self.reference):
            self.choose(str(reference))
        else:
            self.offer(self._offers)

    def _typed(self) -> str | None:
        """What the user types as a model; None where that is none, or nothing."""
        asked = "A hub id owner/repo or owner/repo:Q4_K_M, a name of the catalogue, or the path of a GGUF:"
        text, _ = QInputDialog.getText(self.window(), "Choose a model", asked)
        try:
            return reference_of(text) if text.strip() else None
        except EdgeError as error:
            self.refused.emit(str(error))
            return None


class ModelStrip(QFrame):
    """Says that the chosen model is not on this machine, and shows its download. Hidden where there is neither."""

    wanted = Signal()
    """The user wants the download."""
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("strip")
        self.text = label("", wrap=True)
        self.bar = QProgressBar(minimum=0, maximum=1000, textVisible=False)
        self.bar.setFixedHeight(6)
        self.download = QPushButton("Download")
        self.cancel = QPushButton("Cancel")
        self.download.clicked.connect(self.wanted)
        self.cancel.clicked.connect(self.cancelled)
        said = QVBoxLayout()
        said.setSpacing(6)
        said.addWidget(self.text)
        said.addWidget(self.bar)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 9, 12, 9)
        row.addLayout(said, 1)
        row.addWidget(self.download)
        row.addWidget(self.cancel)
        self.hide()

    def ask(self, chosen: Chosen) -> None:
        """Ask whether ``chosen`` is to be fetched; hides itself where it is there."""
        self.setHidden(chosen.is_here)
        if chosen.is_here:
            return
        name, size = chosen.name, f"{file_size(chosen.size)}" if chosen.size else ""
        is_pack = chosen.pack is not None and chosen.pack.format == "equations"
        if is_pack:
            text = f"{name} is put together once, from a base model of {size} that is downloaded unless it is here."
        else:
            of = f"a download of {size}" if size else "a download; the hub could not be asked how large it is"
            text = f"{name} is not on this machine. It is {of}."
        if chosen.begun:
            text = f"{text} {file_size(chosen.begun)} of it are here already."
        if chosen.reason:
            text = f"{text} It was taken as {chosen.reason.partition(';')[0]}; you can choose another model above."
        self.text.setText(text)
        self.download.setText("Prepare" if is_pack else f"Download {size}".strip())
        self._show(working=False)

    def progress(self, fraction: float, what: str) -> None:
        """Show that ``fraction`` in [0, 1] of the work is done."""
        self.text.setText(f"{what[:1].upper()}{what[1:]}: {fraction:.0%}")
        self.bar.setValue(round(1000 * fraction))
        self._show(working=True)
        self.show()

    def _show(self, working: bool) -> None:
        self.bar.setVisible(working)
        self.cancel.setVisible(working)
        self.cancel.setEnabled(working)
        self.download.setVisible(not working)
