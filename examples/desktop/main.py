"""Start the desktop app: ``python examples/desktop/main.py``."""

from __future__ import annotations

import multiprocessing
import sys


def main() -> int:
    """Run the app and return its exit code."""
    from edge_desktop.app import run  # here: the solver's child process imports this file and needs no Qt

    return run(sys.argv)


if __name__ == "__main__":
    multiprocessing.freeze_support()  # in a frozen app the child process runs this program again
    sys.exit(main())
