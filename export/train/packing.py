"""How labelled traces are packed for training: a question and many of its traces as one tree of chunks.

The question is a chunk, and so is each step. Traces that share a prefix share its chunks, and a token attends only to
its own chunk and that chunk's ancestors. So one forward pass scores every trace as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from edge_tts.export.trace_rows import Row
from edge_tts.runtimes.step_layout import StepEncoder


@dataclass(frozen=True)
class Pack:
    """A question and some of its traces as one sequence."""

    chunks: list[tuple[int, ...]]
    """Token ids of each chunk, the question's first; a parent is before its children."""
    parents: list[int]
    """Index of each chunk's parent; -1 for the question."""
    starts: list[int]
    """Position of each chunk's first token."""
    labels: list[float]
    """Mean label of each chunk; 0 for the question."""
    weights: list[float]
    """Number of traces behind each label; 0 for the question."""
    nodes: list[list[int]]
    """For each trace, the chunks of its steps; steps beyond the last position are left out."""

    @property
    def tokens(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


class Packer:
    """Turns rows into packs of about ``pack_tokens`` tokens."""

    def __init__(self, encoder: StepEncoder, positions: int, pack_tokens: int) -> None:
        """``positions`` is the longest question plus trace, in tokens."""
        self._question = lru_cache(maxsize=None)(encoder.question)
        self._step = lru_cache(maxsize=None)(lambda question, steps: encoder.extended(question, steps, ()))
        self._positions = positions
        self._pack_tokens = pack_tokens

    def packs(self, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Pack]]:
        """Pack the rows, question by question, in their order; yields each pack with its rows."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.question, []).append(row)
        for question, group in groups.items():
            taken: list[Row] = []
            steps: dict[tuple[str, ...], int] = {}
            for row in group:
                prefixes = [row.steps[:i] for i in range(1, len(row.steps) + 1)]
                new = {prefix: len(self._step(question, prefix)) for prefix in prefixes}
                if taken and len(self._question(question)) + sum((steps | new).values()) > self._pack_tokens:
                    yield taken, self._pack(taken)
                    taken, steps = [], {}
                taken.append(row)
                steps |= new
            yield taken, self._pack(taken)

    def _pack(self, rows: Sequence[Row]) -> Pack:
        question = self._question(rows[0].question)
        pack = Pack([question], [-1], [0], [0.0], [0.0], [])
        index: dict[tuple[str, ...], int] = {(): 0}
        for row in rows:
            at, nodes = 0, []
            for i, label in enumerate(row.labels, 1):
                prefix = row.steps[:i]
                chunk = self._step(row.question, prefix)
                start = pack.starts[at] + len(pack.chunks[at])
                if start + len(chunk) > self._positions:
                    break
                if prefix not in index:
                    index[prefix] = len(pack.chunks)
                    pack.chunks.append(chunk)
                    pack.parents.append(at)
                    pack.starts.append(start)
                    pack.labels.append(0.0)
                    pack.weights.append(0.0)
                at = index[prefix]
                pack.weights[at] += 1
                pack.labels[at] += (label - pack.labels[at]) / pack.weights[at]
                nodes.append(at)
            pack.nodes.append(nodes)
        return pack


def attention(lengths: Sequence[int], parents: Sequence[int]) -> torch.Tensor:
    """Which tokens see which, (N, N) with N = sum(lengths), in a tree of chunks of these ``lengths``.

    A token sees what is before it in its own chunk, and the chunk's ancestors. ``parents`` is as in :class:`Pack`.
    """
    sees = np.eye(len(lengths), dtype=bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            sees[i] |= sees[parent]
    return torch.from_numpy(np.repeat(np.repeat(sees, lengths, axis=0), lengths, axis=1)).tril()


def collate(packs: Sequence[Pack], device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-pad to (batch, longest): ids, positions, which tokens see which (batch, longest, longest), chunk ends.

    The ends are indices of the chunks' last tokens in the flattened (batch * longest).
    """
    longest = max(pack.tokens for pack in packs)
    ids = torch.zeros((len(packs), longest), dtype=torch.long)
    positions = torch.zeros_like(ids)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(packs), 1, 1)  # padding must see something
    ends = []
    for row, pack in enumerate(packs):
        lengths = [len(chunk) for chunk in pack.chunks]
        total = sum(lengths)
        ids[row, :total] = torch.tensor([token for chunk in pack.chunks for token in chunk])
        spans = [torch.arange(start, start + n) for start, n in zip(pack.starts, lengths, strict=True)]
        positions[row, :total] = torch.cat(spans)
        seen[row, :total, :total] = attention(lengths, pack.parents)
        ends.append(torch.tensor(lengths).cumsum(0) - 1 + row * longest)
    return ids.to(device), positions.to(device), seen.to(device), torch.cat(ends).to(device)
