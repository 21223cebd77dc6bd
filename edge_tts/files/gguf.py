"""Read GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from edge_tts.errors import PackError


def open_gguf(path: Path) -> Any:
    """A gguf.GGUFReader of ``path``. Raises PackError where the file is missing or damaged."""
    try:
        return gguf.GGUFReader(path)
    except FileNotFoundError:
        raise PackError(f"{path} is missing; restore the file") from None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise PackError(f"{path} is damaged and cannot be read as GGUF ({error}); restore the file") from error
