"""Whether two formulas are equal, computed by math-verify in a child process.

sympy can compute for hours on a short input, inside single operations that no thread can interrupt, and
math-verify's own timeout is a signal that only a main thread receives. A child process can be killed. It
starts with the first pair of formulas, reads one JSON line for each pair, and ends with its parent.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Timeout = float | Callable[[], float]
"""Seconds, or a function that returns the seconds left; it is called again and again during a wait."""
LONGEST_SECONDS = 20.0
"""Default for the time spent on formulas; the first pair includes the start of the child process."""
LOOK_SECONDS = 0.03
"""Seconds between two calls of such a function."""
FORMULA_SECONDS = 2.0
"""Longest computation for one pair; a pair that is not decided by then counts as unequal."""

NUMBER_TOLERANCE = 1e-6
"""How far apart equal constants may be: an absolute bound above 1 and a relative one below, as for plain numbers."""

_MAX_DECIDED = 4096


def countdown(timeout: Timeout) -> Callable[[], float]:
    """A function that returns the seconds left of ``timeout``, from now on; ``LONGEST_SECONDS`` bounds a function."""
    asked, most = (timeout, LONGEST_SECONDS) if callable(timeout) else ((lambda: math.inf), timeout)
    ends = time.monotonic() + most
    return lambda: min(ends - time.monotonic(), asked())


class FormulaChecker:
    """A child process that compares formulas; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._decided: dict[tuple[str, str], bool] = {}

    def equal(self, a: str, b: str, timeout: Timeout) -> bool:
        """Whether two LaTeX formulas, without delimiters, are equal.

        Also False where ``timeout`` is too short, which includes a second or more to start the child, and in
        a frozen application, which has no interpreter to start.
        """
        pair = (a, b) if a <= b else (b, a)
        if (known := self._decided.get(pair)) is not None:
            return known
        left = countdown(timeout)
        if left() <= 0 or getattr(sys, "frozen", False) or not sys.executable:
            return False
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            if left() <= 0:
                return False
        try:
            known = self._decided.get(pair)  # another thread may have asked while this one waited
            return self._ask(pair, left) if known is None else known
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child process; the next pair starts another."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
            self._child = None

    def _ask(self, pair: tuple[str, str], left: Callable[[], float]) -> bool:
        if self._child is None or self._child.has_ended:
            self._child = _Child()
        if not self._child.is_ready(left):
            return False  # the child goes on starting, for the next pair
        longest = countdown(FORMULA_SECONDS)
        verdict = self._child.ask(pair, lambda: min(longest(), left()))
        if verdict is None:
            undecided = longest() > 0 or self._child.has_ended
            self._child.kill()
            self._child = None
            if undecided:
                return False  # not remembered: the next call may have more time
        if len(self._decided) >= _MAX_DECIDED:
            self._decided.clear()
        self._decided[pair] = bool(verdict)
        return bool(verdict)


class _Child:
    """One run of this module as a program, and the thread that reads its output."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge_tts.answers.formulas"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ready = False
        threading.Thread(target=self._read, name="formulas", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def is_ready(self, left: Callable[[], float]) -> bool:
        """Wait, while there is time ``left``, until the child has loaded math-verify; False if it has not."""
        self._ready = self._ready or (self._line(left) or "").strip() == "ready"
        return self._ready

    def ask(self, pair: tuple[str, str], left: Callable[[], float]) -> bool | None:
        """Whether the pair is equal, or None where no answer came in time or the child has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(pair) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or the reader has closed it
            return None
        line = self._line(left)
        return None if not line else line.strip() == "equal"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self, left: Callable[[], float]) -> str | None:
        while True:
            seconds = left()
            try:
                return self._lines.get(timeout=min(LOOK_SECONDS, max(0.0, seconds)))
            except queue.Empty:
                if seconds <= 0:
                    return None

    def _read(self) -> None:
        with self._process:  # closes the pipes at the end
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self._lines.put(line)
            self._lines.put("")


CHECKER = FormulaChecker()
atexit.register(CHECKER.close)


def _serve() -> None:
    """Answer pairs from standard input until it ends."""
    from math_verify import LatexExtractionConfig, parse

    logging.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            left, right = (
                parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None) for text in json.loads(line)
            )
            equal = _equal(left, right)
        except Exception:  # whatever sympy and its parser raise on garbage means "not shown to be equal"
            equal = False
        print("equal" if equal else "different", flush=True)


def _equal(left: list[Any], right: list[Any]) -> bool:
    """Whether two parsed formulas are equal.

    Constants are compared here: math-verify rounds both to six decimals, which makes all tiny numbers equal.
    """
    from math_verify import verify

    a, b = _constant(left), _constant(right)
    if a is not None and b is not None:
        apart, size = abs((a - b).evalf(20)), max(abs(a.evalf(20)), abs(b.evalf(20)))
        return bool(apart <= NUMBER_TOLERANCE * min(1, size))
    return bool(verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None))


def _constant(parsed: list[Any]) -> Any:
    """The first parsed expression if it is a finite number, else None."""
    value: Any = parsed[0] if parsed else None
    return value if getattr(value, "is_number", False) and value.is_finite else None


if __name__ == "__main__":
    _serve()
