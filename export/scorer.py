"""What the process reward models this project trains have in common, whatever they start from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from edge_tts.runtimes.chunks import MASKED, tree_mask

OPSET = 17
RunQuant = Literal["fp32", "int8", "int4"]


class Chunks(Protocol):
    """How one kind of model reads a question and its steps, each as a chunk of token ids."""

    def question(self, question: str) -> list[int]:
        """The first chunk."""

    def step(self, question: str, steps: Sequence[str]) -> list[int]:
        """The chunk of the last of ``steps``; its score is read at the end."""


class Scorer(nn.Module, ABC):
    """A transformer that gives every token the logit of a score; a step's is read at its last token."""

    causal: ClassVar[bool]
    """Whether a token sees, of its own chunk, only what is before it."""
    positions: int
    """Longest question plus trace, in tokens."""

    @abstractmethod
    def token_logits(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Score logits (B, T). ``ids`` and ``positions`` are (B, T), ``mask`` (B, T, T) is as of :func:`attention`."""

    @abstractmethod
    def chunks(self, tokenizer: Any) -> Chunks:
        """How this model reads text, with its own tokenizer (``tokenizers.Tokenizer``)."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What to build the model from, beside its weights; plain types."""

    @abstractmethod
    def fresh(self) -> list[nn.Parameter]:
        """Weights that start from nothing, and learn at a rate of their own."""

    @abstractmethod
    def write(self, tokenizer: Path, folder: Path, quant: RunQuant) -> Path:
        """Write ``prm.onnx``, with its metadata, into ``folder``. Raises PackError where quantisation did not take."""


def attention(lengths: Sequence[int], parents: Sequence[int], causal: bool) -> Tensor:
    """Additive mask (N, N) of a tree of chunks, N = sum(lengths): 0 where a token attends, else ``MASKED``.

    The tree is as :func:`edge_tts.runtimes.chunks.tree_mask` has it.
    """
    mask = torch.from_numpy(tree_mask(lengths, parents))
    return mask.masked_fill(torch.ones_like(mask).triu(1) > 0, MASKED) if causal else mask


@torch.no_grad()
def score_trace(model: Scorer, tokenizer: Any, question: str, steps: Sequence[str]) -> list[float]:
    """Scores, by the torch model, of the steps of one trace that fit its positions: the reference for every path."""
    reads = model.chunks(tokenizer)
    chunks = [reads.question(question)]
    for count in range(1, len(steps) + 1):
        chunk = reads.step(question, steps[:count])
        if sum(map(len, chunks)) + len(chunk) > model.positions:
            break
        chunks.append(chunk)
    lengths = [len(chunk) for chunk in chunks]
    mask = attention(lengths, range(-1, len(chunks) - 1), model.causal)
    ids = torch.tensor([token for chunk in chunks for token in chunk])
    logits = model.token_logits(ids[None], torch.arange(len(ids))[None], mask[None])
    scores: list[float] = torch.sigmoid(logits[0, torch.tensor(lengths).cumsum(0) - 1])[1:].tolist()
    return scores
