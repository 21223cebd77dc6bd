"""A cache with one entry for each prefix of a trace: what scoring a step leaves behind for the next round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Key = tuple[str, tuple[str, ...]]
"""A question and the steps up to and including the entry's own; no steps for the question's entry."""
_V = TypeVar("_V")


class PrefixCache(Mapping[Key, _V]):
    """Entries of at most ``limit`` bytes together; the least recently used are dropped first."""

    def __init__(self, limit: int, size: Callable[[_V], int]) -> None:
        """``limit`` in bytes, of which an entry takes ``size(entry)``."""
        self.limit = limit
        self._size = size
        self._entries: OrderedDict[Key, _V] = OrderedDict()
        self.bytes = 0

    def keep(self, scored: Mapping[Key, _V], paths: Sequence[Sequence[Key]]) -> None:
        """Keep the entries on ``paths`` (each from the question on), taking from ``scored`` those not here yet.

        Every path is touched from its end to its start, so an entry is dropped before its ancestors: whatever is in
        the cache has all its ancestors there too.
        """
        for path in paths:
            for key in reversed(path):
                if key not in self._entries:
                    self._entries[key] = scored[key]
                    self.bytes += self._size(scored[key])
                self._entries.move_to_end(key)
        while self.bytes > self.limit:
            _, entry = self._entries.popitem(last=False)
            self.bytes -= self._size(entry)

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def __getitem__(self, key: Key) -> _V:
        return self._entries[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
