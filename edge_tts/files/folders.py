"""Where packs and the user's own profiles are stored: below EDGE_REASON_HOME if set, else in the platform's folders.

These functions create nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "EDGE_REASON_HOME"
_APPLICATION = "edge-reason"


def data_folder() -> Path:
    """The folder of packs, each in a folder of its own."""
    return _base(platformdirs.user_data_path(_APPLICATION, appauthor=False)) / "packs"


def profiles_folder() -> Path:
    """The folder of the user's own profiles, each a file ``NAME.toml``."""
    return _base(platformdirs.user_config_path(_APPLICATION, appauthor=False)) / "profiles"


def cache_folder() -> Path:
    """The folder of what can be made again: losing it costs time only."""
    return _base(platformdirs.user_cache_path(_APPLICATION, appauthor=False)) / "prefixes"


def _base(default: Path) -> Path:
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser().absolute() if home else default
