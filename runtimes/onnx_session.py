"""Opening a PRM: its ONNX Runtime session, on the device that is there, and its tokenizer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from edge_tts.errors import PackError
from edge_tts.runtimes import device as devices

Device = Literal["auto", "cpu", "cuda"]


def open_session(path: Path, device: Device, threads: int | None) -> tuple[Any, Literal["cpu", "cuda"], str]:
    """A session, the device it really runs on, and the reason for that device.

    ``threads``: None means one per physical core. Raises PackError where the model cannot be loaded.
    """
    from edge_tts.runtimes.privacy import import_onnxruntime

    onnxruntime = import_onnxruntime()

    wanted, reason = providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = devices.threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a CUDA provider without a GPU is reported below, in one clause
    # Shapes differ from call to call: planning memory per shape and keeping it would only raise the peak.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Threads that spin between rounds would take the cores from the policy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with _in_utf8(path) as name:
            # Without its own fallback, which prints on standard output.
            start = partial(onnxruntime.InferenceSession, name, options, enable_fallback=0)
            try:
                session = start(providers=wanted)
            except Exception:
                if len(wanted) == 1:
                    raise
                session = start(providers=wanted[-1:])
    except Exception as error:  # onnxruntime's errors share no public base
        reason = " ".join(str(error).split())
        raise PackError(f"cannot load the verifier {path}: {reason}; verify or reinstall the pack") from error
    on_cuda = session.get_providers()[0] == "CUDAExecutionProvider"
    if len(wanted) > 1 and not on_cuda:
        reason = "onnxruntime could not start its CUDA provider here (no usable GPU, CUDA or cuDNN)"
    return session, "cuda" if on_cuda else "cpu", reason


@contextlib.contextmanager
def _in_utf8(path: Path) -> Iterator[str]:
    """``path`` as ONNX Runtime takes it, in UTF-8; where its name is none, through a link from a temporary folder.

    The link is to the folder, so that weights beside the model are found.
    """
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        with tempfile.TemporaryDirectory(prefix="edge-reason-") as folder:
            link = Path(folder, "prm")
            link.symlink_to(path.absolute().parent)
            yield str(link / path.name)
    else:
        yield str(path)


def providers(device: Device, available: Sequence[str]) -> tuple[list[Any], str]:
    """ONNX Runtime providers to ask for, in order, and the reason, as one clause."""
    cpu = "CPUExecutionProvider"
    if device == "cpu":
        return [cpu], "the CPU was asked for"
    if "CUDAExecutionProvider" not in available:
        return [cpu], "this onnxruntime build has no CUDA provider"
    # By default the arena doubles whenever it grows; the policy needs that memory.
    cuda = ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    return [cuda, cpu], "onnxruntime offers its CUDA provider"


def load_tokenizer(path: Path) -> Any:
    """A verifier's tokenizer (``tokenizers.Tokenizer``). Raises PackError where it is damaged."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise PackError(
            f"cannot read the verifier's tokenizer {path}: {error}; verify or reinstall the pack"
        ) from error


def require_tokenizer(model_path: Path, tokenizer_path: Path, expected: str) -> None:
    """Raise PackError unless ``expected`` is the tokenizer's sha256."""
    try:
        digest = hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    except OSError as error:
        raise PackError(
            f"cannot read the verifier's tokenizer {tokenizer_path}: {error}; verify or reinstall the pack"
        ) from error
    if digest != expected:
        raise PackError(
            f"the tokenizer {tokenizer_path} (sha256 {digest[:12]}...) does not fit the verifier {model_path}, "
            f"which was exported with the tokenizer {expected[:12]}...; verify or reinstall the pack"
        )
