"""The process reward model: a block-causal MiniLM encoder, and its export to int8 ONNX.

A trace is a sequence of chunks: the question, then one chunk per step. Attention is full inside a
chunk and towards the chunks before it, never towards later ones, so the keys and values of a chunk
are final once computed and a step's score, read at the chunk's last token, never changes.

    python -m edge_tts.export.prm --run RUN --out FOLDER
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PrmShape:
    """Sizes of the encoder; the defaults are MiniLM-L6's."""

    vocabulary: int
    layers: int = 6
    hidden: int = 384
    heads: int = 12
    inner: int = 1536
    positions: int = 512
    """Longest question plus trace, in tokens."""


class Block(nn.Module):
    """One post-norm transformer block that attends to cached and to new tokens."""

    def __init__(self, shape: PrmShape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.out = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.up = nn.Linear(shape.hidden, shape.inner)
        self.down = nn.Linear(shape.inner, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, H), additive mask (B, T, P + T), past (2, B, P, H) -> new x, new keys and values (2, B, T, H)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        present = torch.stack([key, value])
        if past is not None:
            key, value = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.unsqueeze(1))
        x = self.attention_norm(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        inner = nn.functional.gelu(self.up(x))
        return self.norm(x + self.dropout(self.down(inner))), present


class StepScorer(nn.Module):
    """Encoder with a linear head; a step's score is read at its last token."""

    def __init__(self, shape: PrmShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.places = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.head = nn.Linear(shape.hidden, 1)

    def logits(self, ids: Tensor, positions: Tensor, mask: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score logits (B, T) and the new keys and values (layers, 2, B, T, H).

        ``ids`` and ``positions`` are (B, T); ``mask`` (B, T, P + T) is 0 where a token attends and
        very negative elsewhere, past tokens first; ``past`` is (layers, 2, B, P, H).
        """
        x = self.dropout(self.norm(self.words(ids) + self.places(positions)))
        presents = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, mask, None if past is None else past[i])
            presents.append(present)
        return self.head(x).squeeze(-1), torch.stack(presents)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`logits`, with scores in [0, 1]."""
        logits, present = self.logits(ids, positions, mask, past)
        return torch.sigmoid(logits), present
