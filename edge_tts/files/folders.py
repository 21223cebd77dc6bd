"""Where packs and the user's own profiles live.

``EDGE_REASON_HOME`` moves both under one folder; otherwise the platform's own places are used.
Nothing is created here.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "EDGE_REASON_HOME"
_APPLICATION = "edge-reason"


def data_folder() -> Path:
    """The folder that holds packs, one sub-folder each."""
    return _base(platformdirs.user_data_path(_APPLICATION, appauthor=False)) / "packs"


def profiles_folder() -> Path:
    """The folder that holds the user's own profiles, ``NAME.toml`` each."""
    return _base(platformdirs.user_config_path(_APPLICATION, appauthor=False)) / "profiles"


def _base(default: Path) -> Path:
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser().absolute() if home else default
