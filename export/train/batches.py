"""Training batches bounded in tokens, of examples of about the same length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def batched(
    items: Sequence[_T], length: Callable[[_T], int], most_tokens: int, most: int | None = None
) -> Iterator[list[_T]]:
    """Batches of ``items``, in order, of at most ``most`` items and ``most_tokens`` tokens with padding.

    An item longer than that is a batch of its own.
    """
    batch: list[_T] = []
    for item in items:
        longest = max(map(length, [item, *batch]))
        if batch and (len(batch) == most or longest * (len(batch) + 1) > most_tokens):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def bucketed(
    items: list[_T],
    bucket: int,
    length: Callable[[_T], int],
    rng: random.Random,
    most_tokens: int,
    most: int | None = None,
) -> list[list[_T]]:
    """The batches of an epoch (see :func:`batched`), in random order.

    ``items`` are shuffled in place, and every ``bucket`` of them is sorted by length: batches need little padding and
    are still mixed.
    """
    rng.shuffle(items)
    batches: list[list[_T]] = []
    for start in range(0, len(items), bucket):
        batches += batched(sorted(items[start : start + bucket], key=length), length, most_tokens, most)
    rng.shuffle(batches)
    return batches
