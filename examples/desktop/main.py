"""Start the desktop app: ``python examples/desktop/main.py``."""

from __future__ import annotations

import multiprocessing
import sys


def main() -> int:
    """Run the app; returns its exit code."""
    from edge_desktop.app import run  # here, so that the solver's process, which imports this file, stays without Qt

    return run(sys.argv)


if __name__ == "__main__":
    multiprocessing.freeze_support()  # in a frozen app the solver's process is this program again
    sys.exit(main())
