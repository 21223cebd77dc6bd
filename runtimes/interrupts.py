"""Ctrl-C that has to wait: while native code calls back into Python, and while what is loaded has no owner yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def holding_interrupts() -> Iterator[list[int]]:
    """Hold Ctrl-C back until the end; the list has an entry for each one.

    An exception raised inside a callback of llama.cpp, such as its log, would be lost; one raised between the start of
    a thread or a model and its registration for closing would leave it behind.
    """
    held: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield held
        return
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
        if held and callable(before):
            before(signal.SIGINT, None)
