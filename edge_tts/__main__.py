"""Entry point of ``edge-reason`` and ``python -m edge_tts``: Ctrl-C is handled before anything is imported."""

import signal
import sys


def main() -> None:
    """Run the command line and leave the process with the fitting exit code."""
    try:
        from edge_tts.cli import run

        code = run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    # From here on Ctrl-C ends the process at once, without a traceback out of the interpreter's shutdown.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


if __name__ == "__main__":
    main()
