"""Difficulty bins and the strategy table: which search a question gets, and why.

The table is fitted on held-out problems (compute-optimal scaling, Snell et al. 2024, section 3.2)
and shipped with the pack: for every difficulty bin and budget, the strategy that did best there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from edge_tts.errors import InputError, PackError
from edge_tts.search.strategy import Strategy

BINS = 5


@dataclass(frozen=True)
class StrategyTable:
    """Best strategy per difficulty bin and budget.

    ``edges`` are four falling scores: a question whose probe scores at least ``edges[0]`` is in bin
    0, the easiest; below ``edges[3]`` it is in bin 4. ``cells[bin][i]``, in the
    words of :meth:`Strategy.parse`, serves ``budgets[i]`` generations, of which the first ``probe``
    estimate the difficulty.
    """

    probe: int
    edges: tuple[float, ...]
    budgets: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    fitted: bool = False
    """Whether the table brings the evidence it was fitted on; otherwise it is a provisional choice."""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Read a pack's ``table.json``. Raises PackError where it is not a valid table."""
        try:
            table = cls(
                int(data["probe"]),
                tuple(float(e) for e in data["edges"]),
                tuple(int(b) for b in data["budgets"]),
                tuple(tuple(row) for row in data["cells"]),
                "evidence" in data,
            )
            for cell in (cell for row in table.cells for cell in row):
                Strategy.parse(cell)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise PackError(f"the strategy table is damaged ({error}); run `edge-reason pack verify`") from error
        square = len(table.cells) == BINS and all(len(row) == len(table.budgets) for row in table.cells)
        falling = len(table.edges) == BINS - 1 and all(a >= b for a, b in pairwise(table.edges))
        if not (square and falling and table.budgets and table.probe > 0):
            raise PackError(
                f"the strategy table needs {BINS} rows of one cell per budget and {BINS - 1} falling edges, "
                f"not {len(table.cells)} rows and edges {list(table.edges)}; run `edge-reason pack verify`"
            )
        return table

    def bin(self, score: float) -> int:
        """The difficulty bin of a probe score, 0 (easiest) to 4."""
        return sum(score < edge for edge in self.edges)

    def choose(self, difficulty: int, generations: int) -> tuple[Strategy, str]:
        """The strategy for a bin, sized to ``generations``, and the reason."""
        nearest = min(range(len(self.budgets)), key=lambda i: abs(math.log(self.budgets[i] / generations)))
        cell = self.cells[difficulty][nearest]
        basis = "best on validation" if self.fitted else "a provisional choice"
        reason = f"{basis} for difficulty {difficulty + 1} of {BINS} at {self.budgets[nearest]} generations"
        return Strategy.parse(cell, generations), reason
