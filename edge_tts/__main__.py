"""Entry point of ``edge-reason`` and ``python -m edge_tts``. Imports the rest late, so that Ctrl-C always works."""

import io
import signal
import sys


def main() -> None:
    """Run the command line and exit the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where there is no console
            # What the terminal's encoding lacks, and bytes of paths that are no text, are shown as escapes.
            stream.reconfigure(errors="backslashreplace")
    try:
        from edge_tts.cli import run

        code = run()
        # A Ctrl-C during the interpreter's shutdown would print a traceback; let it end the process instead.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
