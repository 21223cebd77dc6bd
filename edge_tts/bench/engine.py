"""The engine's speed against a bare ``llama_decode`` loop, and the time to its first token.

The two sides of a comparison decode short bursts in turn, because the speed of a shared machine drifts from second to
second. Each side has a process of its own. In one process they would slow each other: OpenMP keeps a team of workers
for every thread that has computed, and once there are more workers than cores it puts them to sleep early.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from edge_tts.bench.intervals import quartiles
from edge_tts.core import Request, Sampling
from edge_tts.packs.pack import Pack
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
from edge_tts.runtimes.llama_native import NativeModel, model_params

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
CONTEXT = 512
BURST = 32
"""Tokens that a burst adds to each sequence."""


@contextmanager
def sound_kernels() -> Iterator[None]:
    """Make ``llama_cpp.Llama`` load models with our :func:`model_params` in this block; it has no option for that."""
    defaults, params = lib.llama_model_default_params, model_params()
    lib.llama_model_default_params = lambda: params
    try:
        yield
    finally:
        lib.llama_model_default_params = defaults


class _Bare:
    """A loop that decodes one fixed token in every sequence, again and again, and does nothing else."""

    def __init__(self, path: Path, width: int) -> None:
        self._native = NativeModel(path, EngineConfig(width=width, context=CONTEXT))
        self._prompt = self._native.tokenize(PromptFormat().render(QUESTION), special=True)
        self._width = width
        self._position = CONTEXT

    def burst(self) -> float:
        """Tokens/s of one burst."""
        if self._position + BURST > CONTEXT:
            self._begin()
        begun = time.monotonic()
        self._go_on()
        return self._width * BURST / (time.monotonic() - begun)

    def _begin(self) -> None:
        self._native.trim(0, 0)
        self._native.decode([(t, i, 0, False) for i, t in enumerate(self._prompt)])
        for sequence in range(1, self._width):
            self._native.fork(0, sequence, len(self._prompt))
        self._position = len(self._prompt)
        self._go_on()

    def _go_on(self) -> None:
        for _ in range(BURST):
            self._native.decode([(self._prompt[-1], self._position, s, True) for s in range(self._width)])
            self._position += 1


class _Engine:
    """The engine, which also samples and splits steps. Every sequence has a prompt of its own, so no work is shared."""

    def __init__(self, path: Path, width: int) -> None:
        self._policy = LlamaPolicy(path, EngineConfig(width=width, context=CONTEXT))
        texts = [QUESTION.replace("12", str(10 + i)) for i in range(width)]
        self._prompts = [self._policy.tokenize(PromptFormat().render(text), special=True) for text in texts]
        self._tokens: list[tuple[int, ...]] = []

    def burst(self) -> float:
        """Tokens/s of one burst, which continues the sequences of the last one."""
        if not self._tokens or max(map(len, self._tokens)) + BURST >= CONTEXT:
            self._tokens = list(self._prompts)
            self._go_on()
        begun = time.monotonic()
        count = self._go_on()
        return count / (time.monotonic() - begun)

    def _go_on(self) -> int:
        sampling, before = Sampling(max_tokens=BURST, ignore_end=True), sum(map(len, self._tokens))
        for event in list(self._policy.generate([Request(tokens, len(tokens), sampling) for tokens in self._tokens])):
            self._tokens[event.request] += event.tokens
        return sum(map(len, self._tokens)) - before


_side: _Bare | _Engine


def _open(kind: type[_Bare | _Engine], path: Path, width: int) -> None:
    global _side
    _side = kind(path, width)


def _burst() -> float:
    return _side.burst()


def against_bare_loop(pack: Pack, width: int, bursts: int) -> dict[str, Any]:
    """Median tokens/s of the engine and of the loop, and the median of engine over loop in each pair of bursts."""
    pairs = _side_by_side(pack, (_Engine, width), (_Bare, width), bursts)
    return {
        "width": width,
        "bursts": bursts,
        "engine_tokens_per_second": round(statistics.median(a for a, _ in pairs), 1),
        "bare_tokens_per_second": round(statistics.median(b for _, b in pairs), 1),
        **quartiles([a / b for a, b in pairs]),
    }


def wider_loop(pack: Pack, width: int, times: int, bursts: int) -> dict[str, Any]:
    """Tokens/s of a bare loop over ``times`` as many sequences, against ``width``: the part of sharing's gain that is
    due to a wider batch alone."""
    pairs = _side_by_side(pack, (_Bare, times * width), (_Bare, width), bursts)
    return {"widths": [width, times * width], "bursts": bursts, **quartiles([a / b for a, b in pairs])}


def _side_by_side(
    pack: Pack, one: tuple[type[_Bare | _Engine], int], other: tuple[type[_Bare | _Engine], int], bursts: int
) -> list[tuple[float, float]]:
    """Tokens/s of each pair of bursts, without the first pair, which warms up."""
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, _open, (one[0], pack.policy_path, one[1])) as first,
        ProcessPoolExecutor(1, spawn, _open, (other[0], pack.policy_path, other[1])) as second,
    ):
        return [(first.submit(_burst).result(), second.submit(_burst).result()) for _ in range(bursts + 1)][1:]


_FIRST_TOKEN = """
import sys, time
begun = time.time()
import json
from pathlib import Path
from edge_tts.core import Request, Sampling
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
imported = time.time()
policy = LlamaPolicy(Path(sys.argv[2]), EngineConfig(int(sys.argv[3]), int(sys.argv[4])))
loaded = time.time()
prompt = policy.tokenize(sys.argv[5])
next(policy.generate([Request(prompt, 0, Sampling(temperature=0, max_tokens=1))]))
done, started = time.time(), float(sys.argv[1])
parts = {"interpreter": begun - started, "imports": imported - begun, "loading": loaded - imported}
print(json.dumps({**parts, "first token": done - loaded, "total": done - started}))
"""


def first_token(pack: Pack, width: int, repeats: int) -> dict[str, Any]:
    """Median seconds from the start of a process to its first token, in all and by part; "worst" is the longest in all.

    The model's file is in the page cache.
    """
    pack.policy_path.read_bytes()
    runs = []
    for _ in range(repeats):
        arguments = [str(pack.policy_path), str(width), str(CONTEXT), QUESTION]
        command = [sys.executable, "-c", _FIRST_TOKEN, repr(time.time()), *arguments]
        runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    medians = {part: round(statistics.median(run[part] for run in runs), 3) for part in runs[0]}
    return {"runs": repeats, "width": width, "worst": round(max(run["total"] for run in runs), 3), **medians}
