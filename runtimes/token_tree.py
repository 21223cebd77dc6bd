"""What the samples of one call have evaluated, for those that begin later.

A call with more samples than streams starts the rest one by one, as others end. What such a sample begins
with was evaluated before: as long as it draws what another has drawn, it needs that one's distributions only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 2048
"""Nodes of a tree, about 1.2 kB each; what samples share lies near the root."""
LONGEST: Final = 256
"""Candidates of a node that is kept; whole vocabularies would take too much memory."""

Branches: TypeAlias = "dict[int | tuple[int, ...], Node]"
"""By drawn token; in the root by prompt."""


@dataclass(eq=False, slots=True)
class Node:
    """A prefix that was evaluated: from what to draw its next token."""

    ids: NDArray[np.int64]
    """Candidates, ascending; among them the top-k of every request."""
    logits: NDArray[np.float32]
    total: float
    """Log of the sum of exp(logit) over the vocabulary."""
    branches: Branches = field(default_factory=dict)

    def logprob(self, token: int) -> float:
        """Log-probability of a candidate, at temperature 1."""
        return float(self.logits[np.searchsorted(self.ids, token)]) - self.total


class TokenTree:
    """Grows while samples are waiting that have not begun: after the last, nobody would find what is new."""

    def __init__(self, samples: int) -> None:
        self.unbegun = samples
        self.roots: Branches = {}
        self._size = 0

    def keep(self, node: Node, branches: Branches | None, key: int | tuple[int, ...]) -> Node | None:
        """The node at ``key`` of ``branches``, which is ``node`` if it is new; None where it is not kept."""
        if branches is None:
            return None
        known = branches.get(key)
        if known is None and self.unbegun > 0 and self._size < LARGEST and len(node.ids) <= LONGEST:
            self._size += 1
            known = branches[key] = node
        return known
