"""How a question and its traces become the token chunks a process reward model reads.

Chunk 0 is the question, each step is one chunk; traces that share a prefix share its chunks, so a
set of traces is a tree and one pass scores all of it (training and inference pack it alike).
"""

from __future__ import annotations

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


def question_chunk(tokenizer: Any, question: str) -> list[int]:
    """Token ids ``[CLS] question [SEP]``, at most ``MAX_QUESTION_TOKENS``."""
    ids: list[int] = tokenizer.encode(question, add_special_tokens=False).ids
    kept = ids[-(MAX_QUESTION_TOKENS - 2) :]
    return [tokenizer.token_to_id("[CLS]"), *kept, tokenizer.token_to_id("[SEP]")]


def step_chunk(tokenizer: Any, step: str) -> list[int]:
    """Token ids ``step [SEP]``, at most ``MAX_STEP_TOKENS``; the step's score is read at the last one."""
    ids: list[int] = tokenizer.encode(step, add_special_tokens=False).ids
    return [*ids[: MAX_STEP_TOKENS - 1], tokenizer.token_to_id("[SEP]")]


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
