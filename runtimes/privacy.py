"""Switches off the telemetry of the libraries that this package uses.

``edge_tts`` calls :func:`disable_telemetry` when it is imported, which is before any of these libraries is. Processes
that this one starts inherit the settings. A variable that the user has set already is left as it is.
"""

from __future__ import annotations

import os
from typing import Any

SETTINGS = {
    # Without it, `import onnxruntime` (1.29 and later, not Windows) creates a device id and a database of events in the
    # user's cache folder, and uploads them. Its own disable_telemetry_events() comes too late for both.
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables and the values that switch telemetry off."""


def disable_telemetry() -> None:
    """Set ``SETTINGS`` in the environment of this process and of those that it will start."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, with the event logging of its Windows build switched off, too."""
    import onnxruntime

    if os.environ.get("ORT_DISABLE_TELEMETRY") != "0":
        onnxruntime.disable_telemetry_events()
    return onnxruntime
