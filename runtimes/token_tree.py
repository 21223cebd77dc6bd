"""Logits that samples of one call, or of one search, have computed, kept for samples that begin later.

A call with more samples than streams starts the rest one by one, as streams become free. As long as such a sample
draws the same tokens as an earlier one, it can draw from stored logits without running the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 2048
"""Most nodes of a tree, about 1.2 kB each; what samples share is near the root."""
LONGEST: Final = 256
"""Most candidates of a node that is kept; whole vocabularies would take too much memory."""

Branches: TypeAlias = "dict[int | tuple[int, ...], Node]"
"""Nodes by the token drawn before them; at the root, by prompt."""


@dataclass(eq=False, slots=True)
class Node:
    """An evaluated prefix: what its next token is drawn from."""

    ids: NDArray[np.int64]
    """Candidate tokens, ascending; they include the top-k of every request."""
    logits: NDArray[np.float32]
    total: float
    """Log of the sum of exp(logit) over the vocabulary."""
    branches: Branches = field(default_factory=dict)

    def logprob(self, token: int) -> float:
        """Log-probability of a candidate, at temperature 1."""
        return float(self.logits[np.searchsorted(self.ids, token)]) - self.total


class TokenTree:
    """The evaluated prefixes of one call, or of the calls of one search.

    It grows until its last sample has begun, since nobody would read more.
    """

    def __init__(self, samples: float) -> None:
        """``samples``: how many there will be; infinite where that is not known."""
        self.unbegun = samples
        self.roots: Branches = {}
        self._size = 0

    def keep(self, node: Node, branches: Branches | None, key: int | tuple[int, ...]) -> Node | None:
        """The node kept at ``key`` of ``branches``: ``node`` if there was none; None where nothing is kept."""
        if branches is None:
            return None
        known = branches.get(key)
        if known is None and self.unbegun > 0 and self._size < LARGEST and len(node.ids) <= LONGEST:
            self._size += 1
            known = branches[key] = node
        return known
