"""Resident memory that a configuration will use, predicted before it is loaded.

The model of llama.cpp's buffers is derived from shapes; its constants were fitted to the peak
resident memory (VmHWM) of real processes that decode at full width with full contexts, at widths 1
to 64, contexts 256 to 1024, both KV types and micro-batches 32 to 512. It assumes that weights are
read into memory (``LLAMA_LOAD_MODE_NONE``): with a mapped file, tensors that llama.cpp repacks for
the CPU (most of a Q4_0 file) are resident twice.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from edge_tts.core import EngineConfig, PolicyShape, VerifierConfig, VerifierShape

MIB = 2**20

STREAM_CELLS = 256
"""llama.cpp rounds the length of a KV stream up to a multiple of this (llama_context, n_ctx_seq)."""
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes of one cached number; q8_0 stores 32 of them and a scale in 34 bytes."""

_PROCESS_MB = 58.0
"""Python with this package, numpy and llama.cpp's libraries, before a model is loaded."""
_ONNXRUNTIME_MB = 36.0
"""ONNX Runtime and the tokenizers library, loaded."""
_VOCABULARY_BYTES = 400
"""A token's text, score and hash entries, and its share of the merges, in llama.cpp."""
_CELL_BYTES = 176
"""Bookkeeping of one KV cell: its position, its set of sequences, the attention mask."""
_COMPUTE_MB = 4.5
"""Compute graph, its allocator and scratch that do not grow with the batch."""
_ACTIVATIONS = 44
"""Bytes of activations of one token of a micro-batch, per unit of hidden size."""
_LOGIT_BYTES = 13
"""Bytes of a drawn row, per token of the vocabulary: float32 in the compute buffer, the output buffer and in
log-probabilities, and whether it is on the shortlist."""

_VERIFIER_WEIGHT_COPIES = 2.15
"""ONNX Runtime holds the graph's initialisers and packs the matrices again for the CPU."""
_VERIFIER_VOCABULARY_BYTES = 400
"""One entry of the tokenizer's vocabulary."""
_VERIFIER_STEP_TOKENS = 32
"""How far a pass runs over its limit, since steps are scored whole."""
_VERIFIER_TOKEN_NUMBERS = 70
_VERIFIER_PAST_NUMBERS = 6
"""float32 numbers alive at once for a new and for a cached token, per unit of hidden size."""
_VERIFIER_SCORE_COPIES = 1.5
_VERIFIER_HEAD_SIZE = 32
_VERIFIER_QUESTION_TOKENS = 128
_VERIFIER_TRACE_TOKENS = 48
"""What a pass attends to at most, where the cache would hold more: a question and its traces."""
_VERIFIER_NEW_TOKENS = 8
"""New tokens that one trace brings to a pass, besides half a question."""


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak resident memory by part, in MiB; an upper bound meant to be met within a tenth.

    Where the policy is offloaded to a GPU the same parts exist, partly in the GPU's memory.
    """

    process: float
    """Interpreter and native libraries."""
    weights: float
    """The policy's weights and vocabulary."""
    kv: float
    """Keys and values of all streams, and the cells' bookkeeping."""
    compute: float
    """Activations of one micro-batch."""
    sampling: float
    """Logits of all sequences."""
    verifier_weights: float
    """0 without a verifier, like the next."""
    verifier_arena: float
    """Activations of one pass, and the cache of scored prefixes."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return float(sum(asdict(self).values()))

    def to_dict(self) -> dict[str, float]:
        """Parts and total in MiB, each key with the suffix ``_mb``."""
        parts = {f"{name}_mb": round(value, 1) for name, value in asdict(self).items()}
        return {**parts, "total_mb": round(self.total, 1)}


def memory_plan(
    policy: PolicyShape,
    verifier: VerifierShape | None,
    config: EngineConfig,
    verifier_config: VerifierConfig | None = None,
) -> MemoryPlan:
    """Predict the peak resident memory of a process that loads and uses these parts together."""
    context = min(config.context, policy.trained_context)
    cells = config.width * -(-context // STREAM_CELLS) * STREAM_CELLS
    numbers = 2 * policy.layers * policy.kv_heads * policy.head_dim
    micro_batch = max(config.micro_batch, config.width)
    return MemoryPlan(
        process=_PROCESS_MB + (_ONNXRUNTIME_MB if verifier else 0.0),
        weights=(policy.file_bytes + policy.vocabulary * _VOCABULARY_BYTES) / MIB,
        kv=cells * (numbers * KV_BYTES[config.kv_type] + _CELL_BYTES) / MIB,
        compute=_COMPUTE_MB + micro_batch * policy.hidden * _ACTIVATIONS / MIB,
        sampling=config.width * policy.vocabulary * _LOGIT_BYTES / MIB,
        verifier_weights=_verifier_weights_mb(verifier) if verifier else 0.0,
        verifier_arena=(
            verifier_arena_mb(verifier, verifier_config or VerifierConfig(), config.width) if verifier else 0.0
        ),
    )


def _verifier_weights_mb(verifier: VerifierShape) -> float:
    vocabulary: float | None = verifier.vocabulary
    if vocabulary is None:
        # In int8 a file holds a byte for each weight; what is not in a forward pass is the embedding table.
        vocabulary = max(0, verifier.file_bytes - verifier.parameters) / verifier.hidden
    copies = verifier.weight_copies or _VERIFIER_WEIGHT_COPIES
    return (verifier.file_bytes * copies + vocabulary * _VERIFIER_VOCABULARY_BYTES) / MIB


def verifier_arena_mb(verifier: VerifierShape, config: VerifierConfig, width: int) -> float:
    """Activations of one pass over the traces of ``width`` sequences, plus a full cache, in MiB.

    Fitted to MiniLM-L6 encoders in int8 on ONNX Runtime's CPU provider without its memory arena.
    """
    tokens = min(
        config.pass_tokens + _VERIFIER_STEP_TOKENS, _VERIFIER_QUESTION_TOKENS // 2 + width * _VERIFIER_NEW_TOKENS
    )
    if verifier.kv_bytes is not None:
        return _padded_arena_mb(verifier, verifier.kv_bytes, config, width)
    cached = config.cache_mb * MIB / (verifier.layers * 2 * verifier.hidden * 4)
    past = min(cached, _VERIFIER_QUESTION_TOKENS + width * _VERIFIER_TRACE_TOKENS)
    activations = (tokens * _VERIFIER_TOKEN_NUMBERS + past * _VERIFIER_PAST_NUMBERS) * verifier.hidden * 4
    heads = verifier.hidden / _VERIFIER_HEAD_SIZE
    scores = tokens * (tokens + past) * heads * 4 * _VERIFIER_SCORE_COPIES
    return (activations + scores) / MIB + config.cache_mb


def _padded_arena_mb(verifier: VerifierShape, kv_bytes: int, config: VerifierConfig, width: int) -> float:
    """The same for a model of a common family: a row for each trace, with its own copy of what it attends to."""
    rows = max(1, min(width, config.pass_tokens // _VERIFIER_NEW_TOKENS))
    seen = rows * (_VERIFIER_QUESTION_TOKENS + _VERIFIER_TRACE_TOKENS)
    # A model that keeps nothing reads a question and its trace whole each time.
    read = config.pass_tokens + _VERIFIER_STEP_TOKENS if kv_bytes else seen
    activations = read * _VERIFIER_TOKEN_NUMBERS * verifier.hidden * 4
    return (activations + seen * kv_bytes) / MIB + (config.cache_mb if kv_bytes else 0)


def cache_for(verifier: VerifierShape, config: VerifierConfig, width: int) -> VerifierConfig:
    """``config`` with a cache for one question's traces of ``width`` sequences; as it is for this project's models."""
    if verifier.kv_bytes is None:
        return config
    tokens = _VERIFIER_QUESTION_TOKENS + width * _VERIFIER_TRACE_TOKENS
    return replace(config, cache_mb=math.ceil(tokens * verifier.kv_bytes / MIB))
