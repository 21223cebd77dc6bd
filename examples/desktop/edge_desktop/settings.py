"""What the app remembers between starts."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSettings

from edge_desktop.models import AUTOMATIC

_MODEL = "model"


class Settings:
    """A small file beside the history. One that cannot be read or written is no reason to complain."""

    def __init__(self, path: Path) -> None:
        self._file = QSettings(str(path), QSettings.Format.IniFormat)

    @property
    def model(self) -> str:
        """The reference of the model that was chosen last; ``AUTOMATIC`` at first."""
        return str(self._file.value(_MODEL, AUTOMATIC) or AUTOMATIC)

    @model.setter
    def model(self, reference: str) -> None:
        self._file.setValue(_MODEL, reference)
        self._file.sync()
