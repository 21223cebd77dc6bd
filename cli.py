"""Launcher for a checkout: ``python cli.py solve "..."`` is ``edge-reason solve "..."``."""

from edge_tts.cli import main

if __name__ == "__main__":
    main()
