"""A blocking iterator as an asynchronous one."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import closing, suppress
from typing import TypeVar

from edge_tts.cancellation import Cancellation

_T = TypeVar("_T")


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
