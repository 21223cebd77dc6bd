"""How labelled traces are packed for training: a question and many of its traces as one tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from edge_tts.export.scorer import Chunks, attention
from edge_tts.export.train.rows import Row
from edge_tts.runtimes.chunks import MASKED


@dataclass(frozen=True)
class Pack:
    """A question and traces of it as one sequence: a tree of chunks, where traces share their prefixes."""

    chunks: list[list[int]]
    parents: list[int]
    starts: list[int]
    """Position of each chunk's first token."""
    labels: list[float]
    """Mean label of each chunk; the question's is 0."""
    weights: list[float]
    """Traces behind each label; the question's is 0."""
    nodes: list[list[int]]
    """For each trace, the chunks of its steps; steps beyond the last position are left out."""

    @property
    def tokens(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


class Packer:
    """Turns rows into packs of about ``pack_tokens`` tokens."""

    def __init__(self, chunks: Chunks, positions: int, pack_tokens: int) -> None:
        self._question = lru_cache(maxsize=None)(chunks.question)
        self._step = lru_cache(maxsize=None)(chunks.step)
        self._positions = positions
        self._pack_tokens = pack_tokens

    def packs(self, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Pack]]:
        """Pack the rows, question by question, in their order; each pack comes with its rows."""
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


def collate(
    packs: Sequence[Pack], causal: bool, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-pad to (batch, longest): ids, positions, additive mask (batch, longest, longest), chunk ends.

    The ends are indices of the chunks' last tokens in the flattened (batch * longest).
    """
    longest = max(pack.tokens for pack in packs)
    ids = torch.zeros((len(packs), longest), dtype=torch.long)
    positions = torch.zeros_like(ids)
    mask = torch.full((len(packs), longest, longest), MASKED)
    ends = []
    for row, pack in enumerate(packs):
        lengths = [len(chunk) for chunk in pack.chunks]
        total = sum(lengths)
        ids[row, :total] = torch.tensor([token for chunk in pack.chunks for token in chunk])
        spans = [torch.arange(start, start + n) for start, n in zip(pack.starts, lengths, strict=True)]
        positions[row, :total] = torch.cat(spans)
        mask[row, :total, :total] = attention(lengths, pack.parents, causal)
        ends.append(torch.tensor(lengths).cumsum(0) - 1 + row * longest)
    return ids.to(device), positions.to(device), mask.to(device), torch.cat(ends).to(device)
