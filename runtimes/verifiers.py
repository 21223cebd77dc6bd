"""The verifier for an exported reward model of any format this package knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_tts.core import Verifier
from edge_tts.errors import PackError
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx import FORMAT, OnnxVerifier
from edge_tts.runtimes.onnx_decoder import DecoderVerifier
from edge_tts.runtimes.onnx_encoder import EncoderVerifier
from edge_tts.runtimes.onnx_graph import DECODER_FORMAT, ENCODER_FORMAT
from edge_tts.runtimes.onnx_session import Device


def open_verifier(
    model_path: Path,
    tokenizer_path: Path,
    device: Device = "auto",
    threads: int | None = None,
    cache_mb: int | None = None,
    pass_tokens: int | None = None,
) -> Verifier:
    """The verifier for an exported model of any format, told from its metadata; None leaves an option at its default.

    Raises PackError for files that are damaged, do not fit together or are of an unknown format.
    """
    format_ = read_metadata(model_path).get("format")
    options: dict[str, Any] = {"device": device, "threads": threads}
    if pass_tokens is not None:
        options["pass_tokens"] = pass_tokens
    if format_ == ENCODER_FORMAT:
        return EncoderVerifier(model_path, tokenizer_path, **options)
    if cache_mb is not None:
        options["cache_mb"] = cache_mb
    if format_ == DECODER_FORMAT:
        return DecoderVerifier(model_path, tokenizer_path, **options)
    if format_ == FORMAT:
        return OnnxVerifier(model_path, tokenizer_path, **options)
    raise PackError(
        f"{model_path} is not a process reward model this runtime can use (its format is {format_!r}); "
        "verify or reinstall the pack, or export the model again"
    )
