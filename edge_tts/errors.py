"""The one exception tree of the project.

EdgeError
  +-- InputError        a question, file, option or setting that cannot be used     (exit code 2)
  +-- PackError         a pack that is missing, damaged or does not fit together     (exit code 3)
  +-- ResourceError     memory cap, disk space or deadline too small for the work    (exit code 4)
  +-- BackendError      llama.cpp, ONNX Runtime or an endpoint failed                (exit code 5)

Each message says what was wrong, the value seen, and what to do. Only the command line turns an
error into an exit code; the library raises.
"""

from __future__ import annotations

import sys

NO_ANSWER = 6
"""Exit code of ``solve`` where nothing answered the question."""
NOT_SURE = 7
"""Exit code of ``solve`` where the confidence of the answer is below ``--min-confidence``."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""


class EdgeError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class InputError(EdgeError):
    """A question, file, option or setting cannot be used as given."""

    exit_code = 2


class PackError(EdgeError):
    """A pack is missing, damaged, or its parts do not fit together."""

    exit_code = 3


class ResourceError(EdgeError):
    """The memory cap, the disk or the deadline is too small for the work."""

    exit_code = 4


class BackendError(EdgeError):
    """A native runtime or a remote endpoint failed."""

    exit_code = 5


def say(message: str, code: int) -> int:
    """Print ``message`` in one line on standard error; gives ``code`` back."""
    print(" ".join(message.splitlines()), file=sys.stderr)
    return code
