"""Runs the programs that models write, in a sandbox: pydantic-monty, a Python interpreter in a worker process.

A program is run from its first line each time, in a session of its own, and what came of it is remembered by its
text. So candidates share what their programs begin with, a program can be continued in many ways, and a worker that
dies costs one run. To run eight lines again takes as long as to restore a saved session, and needs no bookkeeping.

The sandbox has no files, network, environment or third-party modules. It has ``math``, ``datetime``, ``decimal``.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edge_tts.core import StepValue
from edge_tts.errors import BackendError
from edge_tts.reasoning.program_values import LONGEST_VALUE, MOST_ITEMS, plain

if TYPE_CHECKING:
    from pydantic_monty import Monty, ResourceLimits

REMEMBERED = 2**12
"""Programs whose outcome is remembered."""
MOST_CHARACTERS = 20_000
"""Longest program that is run."""
LONGEST_ERROR = 300
"""Characters of an error that are kept."""
MOST_VARIABLES = 100
"""Variables that are read from a program, the latest."""

# What reads the variables of a program. It takes what it needs as defaults, so that a program may name its own
# variables "type" or "str", and it gives nothing but small plain values: classes and functions stay in the worker.
_PRELUDE = f"""
import datetime as _datetime_
import decimal as _decimal_
_locals_ = locals
def _values_(variables, _type=type, _str=str, _len=len, _abs=abs, _all=all, _isinstance=isinstance,
             plain=(bool, int, float, _decimal_.Decimal, _datetime_.date, _datetime_.datetime, _datetime_.time,
                    _datetime_.timedelta)):
    def small(value):
        kind = _type(value)
        if kind is int:
            return _abs(value) < 10 ** {LONGEST_VALUE}
        return kind in plain or (kind is _str and _len(value) <= {LONGEST_VALUE})
    shown = []
    for name in variables:
        value = variables[name]
        kind = _type(value)
        if name[:1] == "_":
            continue
        if small(value):
            shown.append((name, value))
        elif kind is _str:
            shown.append((name, value[:{LONGEST_VALUE}] + "…"))
        elif kind is list or kind is tuple:
            if _len(value) <= {MOST_ITEMS} and _all([small(item) for item in value]):
                shown.append((name, [item for item in value]))
            else:
                shown.append((name, None))
        elif kind is int or kind is dict or value is None:
            shown.append((name, None))
    return shown[-{MOST_VARIABLES}:]
"""
_READ = "_values_(_locals_())"

_started_in: int | None = None
"""The process that first started a worker: the threads that talk to workers do not live on in a fork of it."""


@dataclass(frozen=True)
class Limits:
    """What one run of a program may take."""

    seconds: float = 0.5
    memory_mb: int = 8
    recursion: int = 100
    """Calls inside calls."""
    output_characters: int = 20_000
    """Characters it may print; they are dropped."""


@dataclass(frozen=True)
class Run:
    """What came of running a program."""

    values: tuple[StepValue, ...] = ()
    """Its variables in the order of their first assignment, where they hold plain values."""
    error: str = ""
    """What went wrong, such as "NameError: name 'x' is not defined"; "" where nothing did. Then there are no values."""
    seconds: float = 0.0
    """What running it took; 0 where it was remembered."""


class _TooMuchOutputError(Exception):
    pass


class Interpreter:
    """A worker process that runs programs one at a time, started when the first program comes.

    Safe to use from several threads. Use as a context manager, or ``close`` it; a worker whose owner dies ends too.
    """

    def __init__(self, limits: Limits = Limits(), binary: Path | None = None) -> None:
        """``binary`` is the worker's program; None finds the one that a frozen app carries, else the installed one."""
        self._limits = limits
        self._binary = binary or _carried()
        self._lock = threading.Lock()
        self._pool: Monty | None = None
        self._is_closed = False
        self._remembered: OrderedDict[str, Run] = OrderedDict()
        _interpreters.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the worker now, and see that it works. Raises BackendError, with what to do, where it does not."""
        with self._lock:
            self._start()

    def run(self, lines: Sequence[str]) -> Run:
        """Run the program ``lines``. What is wrong with it is in the result, and so is a worker that dies of it.

        Raises BackendError where no worker can be started at all.
        """
        source = "\n".join(lines)
        with self._lock:
            if (known := self._remembered.get(source)) is not None:
                self._remembered.move_to_end(source)
                return known
            if len(source) > MOST_CHARACTERS:
                return Run(error=f"the program has more than {MOST_CHARACTERS} characters")
            self._start()
            begin = time.perf_counter()
            values, error, is_sure = self._values(source)
            run = Run(values, error, time.perf_counter() - begin)
            if is_sure:
                self._remembered[source] = Run(values, error)
                if len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)
            return run

    def close(self) -> None:
        """End the worker; idempotent."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _start(self) -> None:
        global _started_in
        if self._is_closed:
            raise BackendError("the interpreter for programs was closed; make a new one")
        if _started_in not in (None, os.getpid()):
            raise BackendError(
                "the interpreter for programs does not work in a process that was forked after it was used; "
                "start that process with the 'spawn' method"
            )
        if self._pool is not None:
            return
        try:
            from pydantic_monty import Monty

            _started_in = os.getpid()
            pool = Monty(binary_path=self._binary, min_processes=1, max_processes=1, checkout_timeout=10)
            pool.__enter__()
            try:
                with pool.checkout(limits=self._monty_limits()) as session:
                    session.feed_run("1 + 1")
            except BaseException:
                pool.__exit__(None, None, None)
                raise
        except Exception as error:  # not installed, no binary, not executable, killed by a policy of the system, ...
            raise BackendError(
                f"the interpreter for programs does not start: {_short(str(error) or type(error).__name__)}; "
                "reinstall pydantic-monty, or use the text format"
            ) from error
        self._pool = pool

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and _started_in == os.getpid():
            pool.__exit__(None, None, None)

    def _monty_limits(self) -> ResourceLimits:
        return {
            "max_feed_duration_secs": self._limits.seconds,
            "max_memory": self._limits.memory_mb * 2**20,
            "max_recursion_depth": self._limits.recursion,
            "max_suspensions": 100,
        }

    def _values(self, source: str) -> tuple[tuple[StepValue, ...], str, bool]:
        """The variables after ``source``, the error, and whether running it again would give the same."""
        from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

        assert self._pool is not None
        left = self._limits.output_characters

        def printed(_: str, text: str) -> None:
            nonlocal left
            left -= len(text)
            if left < 0:
                raise _TooMuchOutputError(f"the program prints more than {self._limits.output_characters} characters")

        try:
            with self._pool.checkout(
                limits=self._monty_limits(), os_policy={"sleep": "zero", "random_start": {"seed": 0}}
            ) as session:
                read: Any = session.feed_run(f"{_PRELUDE}\n{source}\n{_READ}", print_callback=printed)
            return _step_values(read), "", True
        except (MontyRuntimeError, MontySyntaxError) as error:
            message = _short(error.display("type-msg"))
            # On another occasion the machine may be less busy.
            return (), message, not message.startswith("TimeoutError")
        except MontyCrashedError as error:
            reason = "took too long" if error.timed_out else "ended"
            return (), f"the interpreter {reason} while it ran this program", False
        except Exception as error:  # what reading values or an exhausted worker may raise; the next run starts afresh
            self._end()
            return (), _short(f"{type(error).__name__}: {error}"), False


_interpreters: weakref.WeakSet[Interpreter] = weakref.WeakSet()


def _keep_pools() -> None:
    """In a fork: never destroy the parent's pools. That would take their pipes out of the event queue, which a fork
    shares with its parent, and the parent would wait for its worker for ever."""
    for interpreter in _interpreters:
        if interpreter._pool is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(interpreter._pool))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_pools)


def _carried() -> Path | None:
    """The worker beside the libraries of a frozen app. There is no scripts folder to look in, and a program of the
    same name on the PATH is another one."""
    folder = getattr(sys, "_MEIPASS", None)
    return Path(folder) / ("monty.exe" if sys.platform == "win32" else "monty") if folder else None


def _step_values(read: Any) -> tuple[StepValue, ...]:
    """What a program let itself be read as; a hostile one may have replaced what reads it."""
    pairs = [(name, plain(value)) for name, value in read if isinstance(name, str)]
    return tuple(StepValue(name, text) for name, text in pairs if text is not None)


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 1] + "…"
