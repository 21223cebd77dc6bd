"""What verifiers over exported reward models of common families share."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from edge_tts.core import ModelInfo, Scored
from edge_tts.errors import BackendError, PackError
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx import GPU_BUCKET, load_tokenizer, open_session, require_tokenizer
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECODER_FORMAT = "decoder-past-1"
"""Inputs input_ids, attention_mask, position_ids, past_key_values.*; outputs scores and, of new tokens, present.*."""
ENCODER_FORMAT = "encoder-1"
"""Inputs input_ids, attention_mask; output scores."""

Device = Literal["auto", "cpu", "cuda"]
K = TypeVar("K")


class GraphVerifier(ABC):
    """What both verifiers share. Thread-safe: calls take turns.

    A question beyond 1024 tokens (or half the positions) keeps its last ones, a step beyond 256 (or a
    quarter) its first; steps past the model's last position repeat the last score before them.

    Raises PackError for a damaged model or tokenizer, or a tokenizer the model was not made with;
    BackendError when ONNX Runtime fails.
    """

    format: str

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        device: Device = "auto",
        threads: int | None = None,
        pass_tokens: int = 512,
    ) -> None:
        """``threads``: None means one per physical core; ``pass_tokens``: about the most new tokens of one pass."""
        self._lock = threading.Lock()
        meta = read_metadata(model_path)
        self._sizes, layout = _checked(meta, self.format, model_path, tokenizer_path)
        self._positions = self._sizes["positions"]
        self._encoder = StepEncoder(layout, load_tokenizer(tokenizer_path), self._positions)
        self._session, chosen, reason = open_session(model_path, device, threads)
        self._bucket = GPU_BUCKET if chosen == "cuda" else 1
        self._pass_tokens = pass_tokens
        # Recent cost, as a token-weighted moving average; the first figure is a guess of 2 x parameters at 10 GFLOP/s.
        self._spent_seconds, self._spent_tokens = 200 * self._sizes["parameters"] / 5e9, 200.0
        self._info = ModelInfo(model_path.stem, self._sizes["parameters"], self._positions, chosen, reason)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, question: str, traces: Sequence[Sequence[str]]) -> list[Scored]:
        """Scores of every step of every trace; ``tokens`` of shared work go to the first trace that needs it."""
        with self._lock:
            if self._session is None:
                raise BackendError("the verifier is closed; open a new one to score traces")
            return self._score(question, [tuple(steps) for steps in traces])

    def seconds(self, tokens: int) -> float:
        """Predicted wall time of evaluating ``tokens`` more tokens, from what was seen so far."""
        return tokens * self._spent_seconds / self._spent_tokens

    def close(self) -> None:
        with self._lock:
            self._session = None
            self._forget()

    @abstractmethod
    def _score(self, question: str, traces: list[tuple[str, ...]]) -> list[Scored]:
        """Scores of the traces, in order; called with the lock held."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop everything that is cached."""

    def _run(self, feed: dict[str, NDArray[Any]], tokens: int) -> list[NDArray[Any]]:
        """The graph's outputs; ``tokens`` of the feed are no padding."""
        began = time.perf_counter()
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, feed)
        except Exception as error:  # onnxruntime's errors share no public base
            raise BackendError(f"ONNX Runtime failed while scoring {tokens} tokens: {error}") from error
        self._spent_seconds = 0.8 * self._spent_seconds + time.perf_counter() - began
        self._spent_tokens = 0.8 * self._spent_tokens + tokens
        return outputs

    def _padded(self, tokens: int) -> int:
        return -(-tokens // self._bucket) * self._bucket


def batches(rows: Mapping[K, int], pass_tokens: int) -> Iterator[list[K]]:
    """The keys of ``rows`` (key to new tokens) by like length, at most about ``pass_tokens`` a batch with padding."""
    batch: list[K] = []
    for key in sorted(rows, key=rows.__getitem__):
        if batch and (len(batch) + 1) * rows[key] > pass_tokens:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def finite(score: Any) -> float:
    if not np.isfinite(score):
        raise BackendError("the verifier produced scores that are not numbers; verify or reinstall the pack")
    return float(score)


def _checked(
    meta: dict[str, str], format_: str, model_path: Path, tokenizer_path: Path
) -> tuple[dict[str, int], StepLayout]:
    """Sizes and layout, once it is known that the format is right and the tokenizer belongs to the model."""
    try:
        if meta.get("format") != format_:
            raise ValueError(f"its format is {meta.get('format')!r}, not {format_!r}")
        names = ("layers", "hidden", "kv_heads", "head_dim", "positions", "parameters")
        sizes = {name: int(meta[name]) for name in names}
        layout = StepLayout.from_json(meta["layout"])
        expected = meta["tokenizer_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(
            f"{model_path} is not a process reward model this runtime can use ({error}); "
            "verify or reinstall the pack, or export the model again"
        ) from error
    require_tokenizer(model_path, tokenizer_path, expected)
    return sizes, layout
