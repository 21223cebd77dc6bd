"""ONNX Runtime sessions, and what all verifiers over them share."""

from __future__ import annotations

import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from edge_tts.cancellation import Cancellation
from edge_tts.core import ModelInfo, Scored
from edge_tts.errors import BackendError, PackError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Device = Literal["auto", "cpu", "cuda"]
GPU_BUCKET = 64
"""On CUDA, shapes are padded to multiples of this, so that the arena is not grown by every new length."""

WAIT_SECONDS = 0.02
"""How often a call that waits for its turn looks whether it is still wanted."""


class _StoppedError(Exception):
    """A pass was given up."""


class SessionVerifier(ABC):
    """A :class:`~edge_tts.core.Verifier` over one session. Thread-safe: calls take turns."""

    def __init__(
        self,
        model_path: Path,
        parameters: int,
        positions: int,
        device: Device,
        threads: int | None,
        first_speed: float,
    ) -> None:
        """Open the session; ``first_speed`` is a guess in tokens/s, until something was scored.

        ``threads``: None means one per physical core. Raises PackError for a damaged model.
        """
        self._lock = threading.Lock()
        self._session, chosen, reason = open_session(model_path, device, threads)
        self._bucket = GPU_BUCKET if chosen == "cuda" else 1
        # Recent cost, as a token-weighted moving average.
        self._spent_seconds, self._spent_tokens = 200 / first_speed, 200.0
        self._info = ModelInfo(model_path.stem, parameters, positions, chosen, reason)
        self.busy_seconds = 0.0
        """Time spent in the model since loading."""

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        """Scores of every step of every trace; ``tokens`` of shared work go to the first trace that needs it."""
        cancel = cancel or Cancellation()
        results: list[Scored] = []
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            if cancel.requested:
                return results
        try:
            if self._session is None:
                raise BackendError("the verifier is closed; open a new one to score traces")
            if cancel.requested:
                return results
            self._options = _run_options()
            with cancel.telling(partial(setattr, self._options, "terminate", True)), suppress(_StoppedError):
                results.extend(self._score(question, [tuple(steps) for steps in traces]))
        finally:
            self._lock.release()
        return results

    def seconds(self, tokens: int) -> float:
        """Predicted wall time of evaluating ``tokens`` more tokens, from what was seen so far."""
        return tokens * self._spent_seconds / self._spent_tokens

    def close(self) -> None:
        with self._lock:
            self._session = None
            self._forget()

    @abstractmethod
    def _score(self, question: str, traces: list[tuple[str, ...]]) -> Iterator[Scored]:
        """Scores of the traces, in order, as passes are done; called with the lock held."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop everything that is cached."""

    def _run(self, feed: dict[str, NDArray[Any]], tokens: int) -> list[NDArray[Any]]:
        """The graph's outputs; ``tokens`` of the feed are no padding."""
        began = time.perf_counter()
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, feed, self._options)
        except Exception as error:  # onnxruntime's errors share no public base
            if self._options.terminate:
                raise _StoppedError from error
            raise BackendError(f"ONNX Runtime failed while scoring {tokens} tokens: {error}") from error
        seconds = time.perf_counter() - began
        self.busy_seconds += seconds
        self._spent_seconds = 0.8 * self._spent_seconds + seconds
        self._spent_tokens = 0.8 * self._spent_tokens + tokens
        return outputs

    def _padded(self, tokens: int) -> int:
        return -(-tokens // self._bucket) * self._bucket


def providers(device: Device, available: Sequence[str]) -> tuple[list[Any], str]:
    """ONNX Runtime providers to ask for, in order, and why, as one clause."""
    cpu = "CPUExecutionProvider"
    if device == "cpu":
        return [cpu], "the CPU was asked for"
    if "CUDAExecutionProvider" not in available:
        return [cpu], "this onnxruntime build has no CUDA provider"
    # The default strategy doubles the arena at each growth; the policy needs that memory.
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


def open_session(path: Path, device: Device, threads: int | None) -> tuple[Any, Literal["cpu", "cuda"], str]:
    """A session, the device it really runs on, and why that one."""
    import onnxruntime

    wanted, reason = providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or psutil.cpu_count(logical=False) or 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a CUDA provider without a GPU is reported below, in one clause
    # Shapes differ from call to call: planning memory per shape and keeping it would only raise the peak.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Threads that spin between rounds would take the cores from the policy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's errors share no public base
        raise PackError(f"cannot load the verifier {path}: {error}; verify or reinstall the pack") from error
    on_cuda = session.get_providers()[0] == "CUDAExecutionProvider"
    if len(wanted) > 1 and not on_cuda:
        reason = "onnxruntime could not start its CUDA provider here (no usable GPU, CUDA or cuDNN)"
    return session, "cuda" if on_cuda else "cpu", reason


def _run_options() -> Any:
    import onnxruntime

    return onnxruntime.RunOptions()


def require_tokenizer(model_path: Path, tokenizer_path: Path, expected: str) -> None:
    """Raise PackError unless the tokenizer's sha256 is the one the model was made with."""
    try:
        digest = hashlib.sha256(tokenizer_path.read_bytes()).hexdigest()
    except OSError as error:
        raise PackError(
            f"cannot read the verifier's tokenizer {tokenizer_path}: {error}; verify or reinstall the pack"
        ) from error
    if digest != expected:
        raise PackError(
            f"the tokenizer {tokenizer_path} (sha256 {digest[:12]}...) does not fit the verifier {model_path}, "
            f"which was made with {expected[:12]}...; verify or reinstall the pack"
        )
