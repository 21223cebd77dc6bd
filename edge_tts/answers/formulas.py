"""Whether two formulas are equal, asked of math-verify in a process of its own.

sympy may compute for hours on a short input, inside single operations that no thread can interrupt,
and math-verify's own timeout is a signal that only a main thread can receive. A child process can
be killed. It starts with the first pair of formulas, takes one JSON line for each pair, and ends
with its parent.
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

Timeout = float | Callable[[], float]
"""Seconds, or a function that says how many are left and is asked again while something is waited for."""
LONGEST_SECONDS = 20.0
"""Longest time spent on formulas unless told otherwise; the first pair waits for a process to start."""
LOOK_SECONDS = 0.03
"""How often a function is asked."""
FORMULA_SECONDS = 2.0
"""Longest computation for one pair; a pair not decided by then counts as unequal."""

_MAX_DECIDED = 4096


def countdown(timeout: Timeout) -> Callable[[], float]:
    """Seconds left from now on: of ``timeout``, or of ``LONGEST_SECONDS`` where it is a function that allows more."""
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

        False also where ``timeout`` was not enough, the start of the child (a second or
        more) included, and in a frozen application, which has no interpreter to start.
        """
        pair = (a, b) if a <= b else (b, a)
        if pair in self._decided:
            return self._decided[pair]
        left = countdown(timeout)
        if left() <= 0 or getattr(sys, "frozen", False) or not sys.executable:
            return False
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            if left() <= 0:
                return False
        try:
            return self._ask(pair, left)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child; the next question starts another."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
            self._child = None

    def _ask(self, pair: tuple[str, str], left: Callable[[], float]) -> bool:
        if self._child is None or self._child.has_ended:
            self._child = _Child()
        if not self._child.is_ready(left):
            return False  # it goes on starting, for the next question
        longest = countdown(FORMULA_SECONDS)
        verdict = self._child.ask(pair, lambda: min(longest(), left()))
        if verdict is None:
            undecided = longest() > 0 or self._child.has_ended
            self._child.kill()
            self._child = None
            if undecided:
                return False  # there may be more time, or more luck, when it is asked again
        if len(self._decided) >= _MAX_DECIDED:
            self._decided.clear()
        self._decided[pair] = bool(verdict)
        return bool(verdict)


class _Child:
    """One run of this module as a program, and the thread that reads its lines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_tts.answers.formulas"],
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
        """Whether the child has loaded math-verify, after waiting while there is time ``left``."""
        self._ready = self._ready or (self._line(left) or "").strip() == "ready"
        return self._ready

    def ask(self, pair: tuple[str, str], left: Callable[[], float]) -> bool | None:
        """The verdict, or None where none came in time or the child has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(pair) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # a broken pipe, or one that the reader has closed
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
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            left, right = (
                parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None) for text in json.loads(line)
            )
            equal = verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None)
        except Exception:  # whatever sympy and its parser raise on garbage means "not shown to be equal"
            equal = False
        print("equal" if equal else "different", flush=True)


if __name__ == "__main__":
    _serve()
