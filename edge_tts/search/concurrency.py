"""Threads: read a blocking generator from asyncio, and process many items in parallel."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import TypeVar

from edge_tts.cancellation import Cancellation

_T = TypeVar("_T")
_R = TypeVar("_R")


class _EndError(Exception):
    """Marks the end of the items."""


async def in_thread(items: Generator[_T, None, None], cancel: Cancellation) -> AsyncGenerator[_T, None]:
    """Run the generator ``items`` in its own thread and yield what it yields, without blocking the event loop.

    Items wait in an unbounded queue until they are read. On every exit (end, ``aclose``, a cancelled task, an error)
    this requests ``cancel`` and waits for the thread. Raises what ``items`` raises.
    """
    import asyncio  # here: it takes 2.5 MB, which callers without asyncio should not pay

    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[_T | Exception] = asyncio.Queue()
    ended = asyncio.Event()

    def work() -> None:
        last: Exception = _EndError()
        try:
            with closing(items):
                for item in items:
                    loop.call_soon_threadsafe(arrived.put_nowait, item)
        except Exception as error:
            last = error
        with suppress(RuntimeError):  # the loop is closed, so nobody waits for this
            loop.call_soon_threadsafe(arrived.put_nowait, last)
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=work, name="edge-solve", daemon=True).start()
    try:
        while not isinstance(item := await arrived.get(), Exception):
            yield item
        if not isinstance(item, _EndError):
            raise item
    finally:
        cancel.request()
        await ended.wait()


def together(items: Sequence[_T], work: Callable[[_T, Callable[[], bool]], _R | None], parallel: int) -> Iterator[_R]:
    """Call ``work(item, stopped)`` for every item on ``parallel`` threads; yield results in the order they finish.

    ``stopped()`` becomes true when the iterator is closed or another item failed; ``work`` checks it now and then,
    gives up and returns None. Raises the first exception that ``work`` raises.
    """
    todo: queue.SimpleQueue[_T] = queue.SimpleQueue()
    done: queue.SimpleQueue[_R | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    for item in items:
        todo.put(item)

    def run() -> None:
        while not stop.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                result = work(item, stop.is_set)
                if result is not None:
                    done.put(result)
            except Exception as error:
                done.put(error)
                return

    threads = [threading.Thread(target=run, daemon=True) for _ in range(max(1, min(parallel, len(items))))]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            found = done.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
