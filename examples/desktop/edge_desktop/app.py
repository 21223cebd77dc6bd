"""The application: starts the window and knows where its files are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from PySide6.QtCore import QCommandLineOption, QCommandLineParser, QStandardPaths, QTimer
from PySide6.QtWidgets import QApplication

from edge_desktop.display import problem
from edge_desktop.theme import Theme
from edge_desktop.window import Window


def run(arguments: list[str]) -> int:
    """Show the window and run until it is closed. Returns the exit code, 1 if no window can be opened."""
    if (found := problem(os.environ)) is not None:
        print(f"edge-reason-desktop: {found}", file=sys.stderr)
        return 1
    app = QApplication(arguments)
    app.setApplicationName("edge-reason-desktop")
    parser = QCommandLineParser()
    exit_after_start = QCommandLineOption(
        ["exit-after-start"], "Print a line once the window is visible, and close it."
    )
    parser.addOption(exit_after_start)
    parser.addHelpOption()
    parser.process(app)
    window = Window(Theme(app), history_path(), pack_beside())
    window.show()
    if parser.isSet(exit_after_start):
        _close_once_visible(window)
    return app.exec()


def history_path() -> Path:
    """The history's file, in the platform's data folder for this app."""
    return Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.AppDataLocation)) / "history.sqlite3"


def pack_beside() -> str | None:
    """The pack's folder in a frozen app; None otherwise, for the library's built-in pack."""
    frozen: str | None = getattr(sys, "_MEIPASS", None)
    return str(Path(frozen) / "pack") if frozen else None


def _close_once_visible(window: Window) -> None:
    """Print a line and close the window as soon as it is visible; this measures the start."""
    look = QTimer(window, interval=1)

    def close() -> None:
        if window.windowHandle().isExposed():
            look.stop()
            print("window visible", flush=True)
            window.close()

    look.timeout.connect(close)
    look.start()
