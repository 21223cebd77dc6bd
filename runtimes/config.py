"""How models are loaded: their sizes, read before anything is loaded, and the knobs that a plan turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PolicyShape:
    """What a memory plan needs to know of a policy before it is loaded; kept in the pack's manifest."""

    file_bytes: int
    parameters: int
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    trained_context: int
    """Longest context the model was trained for, in tokens."""
    lookup_bytes: int = 0
    """Part of ``file_bytes`` that is an embedding table of which single rows are read."""


@dataclass(frozen=True)
class VerifierShape:
    """The same for a verifier."""

    file_bytes: int
    parameters: int
    layers: int
    hidden: int
    max_tokens: int
    """Longest question plus trace it can score, in tokens."""
    kv_bytes: int
    """Bytes of keys and values that one token leaves in the cache."""
    vocabulary: int
    """Entries of its tokenizer."""
    weight_copies: float
    """Memory its weights take once loaded, in sizes of the file."""


@dataclass(frozen=True)
class EngineConfig:
    """How a policy is loaded: the knobs a memory plan turns."""

    width: int = 16
    """Sequences decoded together, each with a KV stream of its own; at least 1."""
    context: int = 512
    """Tokens of one stream."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    micro_batch: int = 128
    """Most tokens of one compute graph; bounds the compute buffers and the time to cancel."""
    threads: int | None = None
    """None: one per physical core."""
    gpu_layers: int | None = None
    """None: all where the build can offload to a GPU that is present, else none."""


@dataclass(frozen=True)
class VerifierConfig:
    """How a verifier is run: the knobs a memory plan turns."""

    pass_tokens: int = 64
    """New tokens of one pass of the graph, about."""
    cache_mb: int = 16
    """Most keys and values kept for prefixes that were scored, in MiB."""
    threads: int | None = 1
    """None: one per physical core."""
