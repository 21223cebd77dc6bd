"""What verifiers over exported reward models of common families share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edge_tts.errors import BackendError, PackError
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx_session import Device, SessionVerifier, load_tokenizer, require_tokenizer
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

DECODER_FORMAT = "decoder-past-1"
"""Inputs input_ids, attention_mask, position_ids, past_key_values.*; outputs scores and, of new tokens, present.*."""
ENCODER_FORMAT = "encoder-1"
"""Inputs input_ids, attention_mask; output scores."""

K = TypeVar("K")


class GraphVerifier(SessionVerifier):
    """What both verifiers share.

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
        """``pass_tokens``: about the most new tokens of one pass."""
        meta = read_metadata(model_path)
        self._sizes, layout = _checked(meta, self.format, model_path, tokenizer_path)
        self._positions, parameters = self._sizes["positions"], self._sizes["parameters"]
        self._encoder = StepEncoder(layout, load_tokenizer(tokenizer_path), self._positions)
        # A guess of 2 x parameters at 10 GFLOP/s.
        super().__init__(model_path, parameters, self._positions, device, threads, first_speed=5e9 / parameters)
        self._pass_tokens = pass_tokens


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
