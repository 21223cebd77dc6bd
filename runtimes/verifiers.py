"""Opening an exported reward model as a verifier."""

from __future__ import annotations

from pathlib import Path

from edge_tts.core import Verifier
from edge_tts.runtimes.onnx_session import Device
from edge_tts.runtimes.onnx_verifier import OnnxVerifier


def open_verifier(
    model_path: Path,
    tokenizer_path: Path,
    device: Device = "auto",
    threads: int | None = None,
    cache_mb: int | None = None,
    pass_tokens: int | None = None,
) -> Verifier:
    """The verifier over an exported model; None leaves an option at its default.

    Raises PackError for files that are damaged, do not fit together or are of an unknown format.
    """
    options = {"cache_mb": cache_mb, "pass_tokens": pass_tokens}
    given = {name: value for name, value in options.items() if value is not None}
    return OnnxVerifier(model_path, tokenizer_path, device, threads, **given)
