"""Launcher for a checkout: ``python cli.py solve "..."`` is ``edge-reason solve "..."``."""

from edge_tts.__main__ import main

if __name__ == "__main__":
    main()
