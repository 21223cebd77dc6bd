"""Difficulty bins and the strategy table: which search a question gets, and why.

The table is fitted on held-out problems (compute-optimal scaling, Snell et al. 2024, section 3.2)
and shipped with the pack: for every difficulty bin and budget, the strategy that did best there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Self

import msgspec

from edge_tts.errors import InputError, PackError
from edge_tts.files.typed import typed
from edge_tts.search.strategy import Strategy

BINS = 5

_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class StrategyTable:
    """Best strategy per difficulty bin and budget.

    ``edges`` are four falling scores: a question whose probe scores at least ``edges[0]`` is in bin
    0, the easiest; below ``edges[3]`` it is in bin 4. ``cells[bin][i]``, in the
    words of :meth:`Strategy.parse`, serves ``budgets[i]`` generations, of which the first ``probe``
    estimate the difficulty.
    """

    probe: _AtLeastOne
    edges: tuple[float, ...]
    budgets: Annotated[tuple[_AtLeastOne, ...], msgspec.Meta(min_length=1)]
    cells: tuple[tuple[str, ...], ...]
    fitted: bool = False
    """Whether the table holds the evidence it was fitted on; without evidence it is a provisional choice."""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Read a pack's ``table.json``. Raises PackError where it is not a valid table."""
        stated = {key: data[key] for key in ("probe", "edges", "budgets", "cells") if key in data}
        table = typed(cls, {**stated, "fitted": "evidence" in data}, "the strategy table", PackError)
        if len(table.cells) != BINS or any(len(row) != len(table.budgets) for row in table.cells):
            raise PackError(
                f"the strategy table needs {BINS} rows of {len(table.budgets)} cells, one for each budget; "
                f"got rows of {[len(row) for row in table.cells]} cells; correct the table"
            )
        if len(table.edges) != BINS - 1 or any(a < b for a, b in pairwise(table.edges)):
            raise PackError(
                f"the strategy table needs {BINS - 1} edges, none above the one before; got {list(table.edges)}; "
                "correct the table"
            )
        for cell in (cell for row in table.cells for cell in row):
            try:
                Strategy.parse(cell)
            except InputError as error:
                raise PackError(f"the strategy table has an unusable cell {cell!r}: {error}") from error
        return table

    @property
    def only_votes(self) -> bool:
        """Whether every cell is a vote, which goes on wave by wave."""
        return all(Strategy.parse(cell).is_vote for row in self.cells for cell in row)

    def bin(self, score: float) -> int:
        """The difficulty bin of a probe score, 0 (easiest) to 4."""
        return sum(score < edge for edge in self.edges)

    def choose(self, difficulty: int, generations: int) -> tuple[Strategy, str]:
        """The strategy for a bin, sized to ``generations``, and the reason."""
        nearest = min(range(len(self.budgets)), key=lambda i: abs(math.log(self.budgets[i] / generations)))
        cell = self.cells[difficulty][nearest]
        basis = "best on validation" if self.fitted else "a provisional choice"
        reason = f"{basis} for difficulty {difficulty + 1} of {BINS} at {self.budgets[nearest]} generations"
        strategy = _sized(cell, generations)
        if strategy.starts_anew:  # the samples of the estimate are no part of it, but of the budget
            strategy = _sized(cell, generations - self.probe)
        return strategy, reason


def _sized(cell: str, generations: int) -> Strategy:
    """The strategy of ``cell``; without the settings that so few ``generations`` do not allow."""
    try:
        return Strategy.parse(cell, generations)
    except InputError:
        return Strategy.parse(cell.partition(":")[0], generations)
