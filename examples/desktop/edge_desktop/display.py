"""Whether Qt can open a window here. Where it cannot, Qt would abort the process with a page of debug output."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from PySide6.QtCore import QLibraryInfo

_INSTALL = {
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
"""Libraries that Qt needs under X11 and does not bring along, and their packages in Debian and Ubuntu."""


def problem(environment: Mapping[str, str]) -> str | None:
    """What keeps a window from opening, and what to do about it; None if nothing does or this is not Linux."""
    if sys.platform != "linux" or not _uses_x11(environment):
        return None
    if not environment.get("DISPLAY"):
        return "there is no display; start the app on a desktop, or set DISPLAY or WAYLAND_DISPLAY"
    return _missing_library()


def _uses_x11(environment: Mapping[str, str]) -> bool:
    """Whether Qt will choose its plugin for X11, "xcb"."""
    chosen = environment.get("QT_QPA_PLATFORM", "")
    return chosen.startswith("xcb") if chosen else not environment.get("WAYLAND_DISPLAY")


def _missing_library() -> str | None:
    plugin = Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath)) / "platforms" / "libqxcb.so"
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        reason = error.__cause__ or error  # in a frozen app PyInstaller raises an error of its own from the real one
        found = re.match(r"(\S+): cannot open shared object file", str(reason))
        if found is None:
            return f"Qt's plugin for X11 cannot be loaded: {reason}"
        package = _INSTALL.get(found[1])
        how = f" (Debian, Ubuntu: apt install {package})" if package else ""
        return f"Qt needs the library {found[1]} under X11; install it{how}"
    return None
