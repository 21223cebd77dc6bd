"""Read GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from edge_tts.errors import PackError


class _Reader(gguf.GGUFReader):
    """Reads through plain arrays: a view of a numpy.memmap takes three times as long, and a vocabulary needs half a
    million of them."""

    @property  # type: ignore[override]
    def data(self) -> np.ndarray[Any, Any]:
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray[Any, Any]) -> None:
        self._data = mapped.view(np.ndarray)


def open_gguf(path: Path) -> Any:
    """A gguf.GGUFReader of ``path``. Raises PackError where the file is missing or damaged."""
    try:
        return _Reader(path)
    except FileNotFoundError:
        raise PackError(f"{path} is missing; restore the file") from None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise PackError(f"{path} is damaged and cannot be read as GGUF ({error}); restore the file") from error
