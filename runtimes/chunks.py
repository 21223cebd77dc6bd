"""How a question and its traces become the token chunks a process reward model reads.

Chunk 0 is the question, each step is one chunk; traces that share a prefix share its chunks, so a
set of traces is a tree and one pass scores all of it (training and inference pack it alike).

A step's chunk ends in two marks: tokens that say where its numbers come from. A small encoder would
need far more training data than a device's owner has to learn that bookkeeping by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_QUESTION_TOKENS = 384
"""A longer question keeps its last tokens: that is where it asks."""
MAX_STEP_TOKENS = 96
"""A longer step keeps its first tokens. With the limit above, the first step always fits 512 positions."""
MASKED = -50.0
"""Additive mask of a token that is not seen: exp(-50) is nothing, yet far from slow denormal numbers."""

SOURCE_MARKS = tuple(f"[new{new}unused{unused}]" for new in range(3) for unused in range(4))
RESULT_MARKS = tuple(f"[loose{loose}{kind}]" for loose in range(3) for kind in ("whole", "fraction", "negative"))

_NUMBER = re.compile(r"\d+(?:,\d\d\d)*(?:\.\d+)?|\.\d+")
_WORDS = {
    **{"one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0, "eight": 8.0},
    **{"nine": 9.0, "ten": 10.0, "half": 2.0, "twice": 2.0, "double": 2.0, "thrice": 3.0, "triple": 3.0},
    **{"quarter": 4.0, "dozen": 12.0},
}


def question_chunk(tokenizer: Any, question: str) -> list[int]:
    """Token ids ``[CLS] question [SEP]``, at most ``MAX_QUESTION_TOKENS``."""
    ids: list[int] = tokenizer.encode(question, add_special_tokens=False).ids
    kept = ids[-(MAX_QUESTION_TOKENS - 2) :]
    return [tokenizer.token_to_id("[CLS]"), *kept, tokenizer.token_to_id("[SEP]")]


def step_chunk(tokenizer: Any, question: str, steps: Sequence[str]) -> list[int]:
    """Token ids of the last of ``steps`` and its marks, at most ``MAX_STEP_TOKENS``; its score is read at the end."""
    ids: list[int] = tokenizer.encode(steps[-1], add_special_tokens=False).ids
    return [*ids[: MAX_STEP_TOKENS - 2], *(tokenizer.token_to_id(mark) for mark in marks(question, steps))]


class MarkedChunks:
    """Question and steps as this module's chunks, for one tokenizer (``tokenizers.Tokenizer``)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def question(self, question: str) -> list[int]:
        return question_chunk(self._tokenizer, question)

    def step(self, question: str, steps: Sequence[str]) -> list[int]:
        return step_chunk(self._tokenizer, question, steps)


def marks(question: str, steps: Sequence[str]) -> tuple[str, str]:
    """Where the numbers of the last of ``steps`` come from, as one of ``SOURCE_MARKS`` and one of ``RESULT_MARKS``.

    The first counts its operands that are neither in the question nor results of earlier steps, and
    the question's numbers that no step has used yet; the second counts earlier results that no step
    has used yet, and says what its own result is. A step is ``expression=result``; in other text
    (the answer line too) all numbers are operands and the last one is the result.
    """
    written = set(_numbers(question))
    spoken = {_WORDS[word] for word in re.findall(r"[a-z]+", question.lower()) if word in _WORDS}
    used: set[float] = set()
    results: set[float] = set()
    for step in steps:
        earlier = set(results)
        expression, equals, result = step.rpartition("=")
        operands = _numbers(expression if equals else result)
        used.update(operands)
        value = (_numbers(result) or [0.0])[-1]
        if equals:
            results.add(value)
    new = sum(n not in written | spoken | earlier for n in operands)
    kind = "negative" if re.match(r"[#\s$]*-", result) else "whole" if value.is_integer() else "fraction"
    source = f"[new{min(new, 2)}unused{min(len(written - used), 3)}]"
    return source, f"[loose{min(len(earlier - used), 2)}{kind}]"


def _numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in _NUMBER.findall(text)]


def tree_mask(lengths: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
    """Additive attention mask (N, N) of a tree of chunks, N = sum(lengths).

    A token sees its own chunk and the chunk's ancestors. ``parents[i] < i`` is the index of the
    parent of chunk i, or -1 for a root.
    """
    sees = np.eye(len(lengths), dtype=bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            sees[i] |= sees[parent]
    tokens = np.repeat(np.repeat(sees, lengths, axis=0), lengths, axis=1)
    return np.where(tokens, np.float32(0), np.float32(MASKED))
