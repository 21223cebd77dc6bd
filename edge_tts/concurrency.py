"""Work in threads: a blocking iterator as an asynchronous one, and many items at a time."""

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
    """Nothing more will come."""


async def in_thread(items: Generator[_T, None, None], cancel: Cancellation) -> AsyncGenerator[_T, None]:
    """Yield ``items``, which are made in a thread of their own: any number of them may wait at the same time.

    However this ends, by ``aclose``, a cancelled task or an error, ``cancel`` is requested and the thread has ended.
    """
    import asyncio  # its 2.5 MB are for those who use it

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
        with suppress(RuntimeError):  # the loop is closed: nobody waits
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
    """Yield ``work(item, stopped)`` for all items as they finish, ``parallel`` at a time, each in a thread.

    ``work`` looks at ``stopped`` now and then and returns None where it broke off: when the iterator is
    closed or another item failed. Raises what ``work`` raises.
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
