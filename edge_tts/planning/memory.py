"""Resident memory that a configuration will use, predicted before it is loaded.

The sizes of llama.cpp's buffers are derived from the model's shape. The constants were fitted to the peak resident
memory (VmHWM) of new processes that decode at full width: a 135M, a 0.5B and a 1.5B model, widths 1 to 64, contexts
256 to 2048, both KV types, micro-batches 32 to 512.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from edge_tts.profiles.gpu import built_for_gpus
from edge_tts.runtimes.config import EngineConfig, PolicyShape, VerifierConfig, VerifierShape
from edge_tts.runtimes.process_memory import MAPPED

MIB = 2**20

STREAM_CELLS = 256
"""llama.cpp rounds the length of a KV stream up to a multiple of this (llama_context, n_ctx_seq)."""
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes of one cached number; q8_0 stores 32 of them and a scale in 34 bytes."""

_PROCESS_MB = 66.0
"""Python with this package, numpy and llama.cpp's libraries, before a model is loaded."""
_ONNXRUNTIME_MB = 36.0
"""ONNX Runtime and the tokenizers library, loaded."""
_GPU_BUILD_MB = 180.0
"""Libraries of a llama.cpp built for CUDA, which are loaded where there is no GPU, too: measured there."""
_GPU_CONTEXT_MB = 250.0
"""Memory of this machine for a GPU's driver, its context and the buffers that data passes through; an estimate."""
_VOCABULARY_BYTES = 370
"""One token's text, score and hash entries, and its share of the merges, in llama.cpp."""
_K_BLOCK = 256
"""K-quants, which llama.cpp repacks for the CPU, need rows of a multiple of this; others are quantised otherwise."""
_MAPPED_AGAIN = 0.115
"""Share of the file that is resident beside the tensors repacked from it: where the kernel caches files in large pieces
(6.18), reading one tensor maps up to a megabyte of the next. 0.108 was measured with Qwen2.5-Coder-1.5B."""
_LOOKED_UP = 0.4
"""Share of a mapped embedding table that English text, mathematics and code read in the long run."""
_CELL_BYTES = 176
"""Bookkeeping of one KV cell: its position, its set of sequences, the attention mask."""
_COMPUTE_MB = 4.5
"""Compute graph, its allocator and scratch that do not grow with the batch."""
_ACTIVATIONS = 44
"""Bytes of activations of one token of a micro-batch, per unit of hidden size."""
_LOGIT_BYTES = 6
"""Bytes of a drawn row, per token of the vocabulary: float32 in the output buffer, and half as much in scratch."""

_VERIFIER_VOCABULARY_BYTES = 400
"""One entry of the tokenizer's vocabulary."""
_VERIFIER_STEP_TOKENS = 32
"""How far a pass runs over its limit, since steps are scored whole."""
_VERIFIER_TOKEN_NUMBERS = 70
"""float32 numbers alive at once for a new token, per unit of hidden size."""
_VERIFIER_QUESTION_TOKENS = 128
_VERIFIER_NEW_TOKENS = 8
"""Fewest new tokens that one trace brings to a pass."""
TRACE_TOKENS = 50
"""Tokens of one trace where equations are written one a line: 35 on average, some take more."""


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak resident memory by part, in MiB; an upper bound meant to be met within a tenth."""

    process: float
    """Interpreter and native libraries."""
    weights: float
    """The policy's weights and vocabulary, including what only loading takes and nothing else uses later."""
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
    gpu: float = 0.0
    """What a GPU with memory of its own holds: weights, keys and values, activations. No part of the total."""

    @property
    def total(self) -> float:
        """Sum of all parts that take memory of the machine."""
        return float(sum(asdict(self).values()) - self.gpu)

    def to_dict(self) -> dict[str, float]:
        """Parts and total in MiB, each key with the suffix ``_mb``; ``gpu_mb`` only where it is not 0."""
        parts = {f"{name}_mb": round(value, 1) for name, value in asdict(self).items() if name != "gpu" or value}
        return {**parts, "total_mb": round(self.total, 1)}


def memory_plan(
    policy: PolicyShape,
    verifier: VerifierShape | None,
    config: EngineConfig,
    verifier_config: VerifierConfig | None = None,
    trace_tokens: int = TRACE_TOKENS,
    offloaded: bool = False,
) -> MemoryPlan:
    """Predict the peak resident memory of a process that loads and uses these parts together.

    ``trace_tokens`` is the typical length of a trace that the verifier scores; ``offloaded`` says that the policy
    lies in the memory of a GPU.
    """
    context = min(config.context, policy.trained_context)
    cells = config.width * -(-context // STREAM_CELLS) * STREAM_CELLS
    numbers = 2 * policy.layers * policy.kv_heads * policy.head_dim
    micro_batch = max(config.micro_batch, config.width)
    kv = cells * (numbers * KV_BYTES[config.kv_type] + _CELL_BYTES) / MIB
    compute = _COMPUTE_MB + micro_batch * policy.hidden * _ACTIVATIONS / MIB
    sampling = config.width * policy.vocabulary * _LOGIT_BYTES / MIB
    verifier_config = verifier_config or VerifierConfig()
    process = _PROCESS_MB + (_ONNXRUNTIME_MB if verifier else 0.0) + (_GPU_BUILD_MB if built_for_gpus() else 0.0)
    weights, on_gpu = _weights_mb(policy, kv + compute + sampling), 0.0
    if offloaded:
        looked_up = _LOOKED_UP * policy.lookup_bytes
        on_gpu = (policy.file_bytes - policy.lookup_bytes) / MIB + kv + compute + sampling
        process += _GPU_CONTEXT_MB
        weights = (looked_up + policy.vocabulary * _VOCABULARY_BYTES) / MIB
        kv, compute = cells * _CELL_BYTES / MIB, _COMPUTE_MB
    return MemoryPlan(
        process=process,
        weights=weights,
        kv=kv,
        compute=compute,
        sampling=sampling,
        gpu=on_gpu,
        verifier_weights=_verifier_weights_mb(verifier) if verifier else 0.0,
        verifier_arena=verifier_arena_mb(verifier, verifier_config, config.width, trace_tokens) if verifier else 0.0,
    )


def _weights_mb(policy: PolicyShape, later_mb: float) -> float:
    """Weights and vocabulary.

    A mapped file is resident as a whole while it is loaded; of an embedding table, what is not read is given back
    then. ``later_mb`` is what the context takes after that, in the same place.
    """
    given_back = policy.lookup_bytes * (1 - _LOOKED_UP) / MIB if MAPPED else 0.0
    whole = (policy.file_bytes + policy.vocabulary * _VOCABULARY_BYTES) / MIB
    again = _MAPPED_AGAIN * policy.file_bytes / MIB if MAPPED and policy.hidden % _K_BLOCK == 0 else 0.0
    return whole - min(given_back, later_mb) + again


def _verifier_weights_mb(verifier: VerifierShape) -> float:
    return (verifier.file_bytes * verifier.weight_copies + verifier.vocabulary * _VERIFIER_VOCABULARY_BYTES) / MIB


def verifier_arena_mb(
    verifier: VerifierShape, config: VerifierConfig, width: int, trace_tokens: int = TRACE_TOKENS
) -> float:
    """Activations of one pass over traces of ``width`` sequences, plus a full cache, in MiB.

    Rows of a pass are padded to the longest, each with its own copy of the keys and values it attends to.
    """
    rows = max(1, min(width, config.pass_tokens // _VERIFIER_NEW_TOKENS))
    seen = rows * (_VERIFIER_QUESTION_TOKENS + trace_tokens)
    read = config.pass_tokens + _VERIFIER_STEP_TOKENS
    activations = read * _VERIFIER_TOKEN_NUMBERS * verifier.hidden * 4
    return (activations + seen * verifier.kv_bytes) / MIB + config.cache_mb


def cache_for(
    verifier: VerifierShape, config: VerifierConfig, width: int, trace_tokens: int = TRACE_TOKENS
) -> VerifierConfig:
    """``config`` with a cache for one question's traces of ``width`` sequences."""
    tokens = _VERIFIER_QUESTION_TOKENS + width * trace_tokens
    return replace(config, cache_mb=math.ceil(tokens * verifier.kv_bytes / MIB))
