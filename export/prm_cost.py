"""Latency and memory of an exported reward model by batch and length, in a process of its own.

Peak memory never falls during a process, so shapes are measured from small to large, in a child process that loads
nothing but ONNX Runtime and the model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.errors import BackendError
from edge_tts.runtimes.onnx_session import Device, open_session
from edge_tts.runtimes.process_memory import peak_memory_mb

SHAPES = ((1, 32), (1, 256), (8, 32), (8, 256))
"""Number of sequences, and tokens in each."""
ENOUGH_SECONDS = 2.0


@dataclass(frozen=True)
class Cost:
    """One forward pass of ``batch`` sequences of ``length`` tokens, without past."""

    batch: int
    length: int
    seconds: float
    """Median of a few passes after a first one."""
    peak_memory_mb: float
    """Of the whole process, in MiB, with the model and all shapes up to this one."""
    device: str


def measure(
    model: Path, shapes: Sequence[tuple[int, int]] = SHAPES, device: Device = "cpu", threads: int | None = None
) -> list[Cost]:
    """The cost of each (batch, length) of ``shapes``, smallest first. Raises BackendError where the model fails."""
    if not shapes:
        return []
    asked = json.dumps([sorted(shapes, key=lambda shape: shape[0] * shape[1]), device, threads])
    command = [sys.executable, "-P", "-m", "edge_tts.export.prm_cost", str(model), asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BackendError(f"measuring the speed of {model} failed ({reason}); is there enough memory?")
    return [Cost(**entry) for entry in json.loads(done.stdout)]


def _feed(session: Any, batch: int, length: int) -> dict[str, NDArray[Any]]:
    """Inputs of one pass over arbitrary tokens without a past."""
    shape = (batch, length)
    feed: dict[str, NDArray[Any]] = {
        "input_ids": np.ones(shape, np.int64),
        "attention_mask": np.ones(shape, np.int64),
        "position_ids": np.broadcast_to(np.arange(length), shape),
    }
    for node in session.get_inputs():
        if node.name not in feed:
            kind = np.float16 if node.type == "tensor(float16)" else np.float32
            feed[node.name] = np.zeros((batch, node.shape[1], 0, node.shape[3]), kind)
    return feed


def _main(model: str, asked: str) -> None:
    shapes, device, threads = json.loads(asked)
    session, chosen, _ = open_session(Path(model), device, threads)
    costs = []
    for batch, length in shapes:
        feed = _feed(session, batch, length)
        passes: list[float] = []
        while len(passes) < 2 or (len(passes) < 5 and sum(passes) < ENOUGH_SECONDS):
            began = time.perf_counter()
            session.run(None, feed)
            passes.append(time.perf_counter() - began)
        costs.append(Cost(batch, length, median(passes[1:]), peak_memory_mb(), chosen))
    print(json.dumps([asdict(cost) for cost in costs]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
