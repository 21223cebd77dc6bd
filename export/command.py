"""Running a recipe as ``python -m``: an error ends it with one line and an exit code, as in ``edge-reason``."""

from __future__ import annotations

from collections.abc import Callable

from edge_tts.errors import INTERRUPTED, EdgeError, InputError, say


def run(main: Callable[[], None]) -> int:
    """Run a recipe and return its exit code; errors are reported on standard error."""
    try:
        main()
    except EdgeError as error:
        return say(f"error: {error}", error.exit_code)
    except OSError as error:
        return say(f"error: {error}", InputError.exit_code)
    except KeyboardInterrupt:
        return say("interrupted; the same command goes on from the last checkpoint", INTERRUPTED)
    return 0
