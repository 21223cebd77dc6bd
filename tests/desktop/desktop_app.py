"""Makes the desktop app importable, without a display. Importing this skips the test module where Qt is missing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_tts import Usage

DESKTOP = Path(__file__).parents[2] / "examples" / "desktop"
sys.path.insert(0, str(DESKTOP))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
for module in ("PySide6.QtWidgets", "PySide6.QtTest"):
    pytest.importorskip(module, reason="PySide6 or a system library it needs is missing", exc_type=ImportError)

from edge_desktop.history import Answered  # noqa: E402
from PySide6.QtCore import QEventLoop, QTimer  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
ANSWERED = Answered(
    "2026-01-02T03:04:05+00:00",
    QUESTION,
    "76",
    "complete",
    "weighted:n=16",
    "asked for",
    1,
    0.94,
    ("12*8=96", "96-20=76", "#### 76"),
    (0.3, 0.5, 0.6),
    Usage(policy_tokens=120, generated_tokens=370, seconds=1.9, peak_memory_mb=425.0),
)


def application() -> QApplication:
    """The one application of this process."""
    existing = QApplication.instance()
    return existing if isinstance(existing, QApplication) else QApplication([])


def unserved() -> float:
    """Seconds in which this thread was ready but not running, because the machine was busy; 0 where unknown."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def serve(until: Callable[[], bool], seconds: float = 60.0) -> float:
    """Run the event loop until ``until`` holds.

    Returns the longest time in seconds that something blocked the loop, not counting waits for a busy CPU.
    """
    loop, timer = QEventLoop(), QTimer(interval=2)
    longest, last, queued, ends = 0.0, time.monotonic(), unserved(), time.monotonic() + seconds

    def tick() -> None:
        nonlocal longest, last, queued
        before, last = last, time.monotonic()
        queued_before, queued = queued, unserved()
        longest = max(longest, last - before - (queued - queued_before))
        if until() or last > ends:
            loop.quit()

    timer.timeout.connect(tick)
    timer.start()
    loop.exec()
    assert until(), f"still waiting after {seconds:g} s"
    return longest
