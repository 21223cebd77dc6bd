"""Trying a model in a process of its own: a crash of native code ends that process and not the caller's.

llama.cpp and ONNX Runtime end the whole process on some damaged files. A file that was tried is loaded here without
another trial as long as it does not change.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from edge_tts.core import Request, Sampling
from edge_tts.errors import PackError
from edge_tts.files.folders import cache_folder
from edge_tts.runtimes.config import EngineConfig

SECONDS = 600.0
"""Longest trial; a disk that delivers 20 MB a second is slow, and a model of 4 GB is large."""


def run(module: str, *arguments: str) -> tuple[str, str | None]:
    """Run ``python -m module arguments``: what it printed, and what ended it ("SIGABRT") unless it ended by itself."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # otherwise llama.cpp starts a debugger where there is one
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "", f"the limit of {SECONDS:g} s"
    said = done.stdout.decode(errors="replace")
    if done.returncode >= 0 and (os.name != "nt" or done.returncode < 2**30):
        return said, None
    with suppress(ValueError):
        return said, signal.Signals(-done.returncode).name
    return said, f"code {done.returncode}"


def can_run() -> bool:
    """Whether this process has an interpreter to start; a frozen application has none."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def require_sound(model: Path) -> None:
    """Raise PackError where loading the GGUF ``model`` and drawing a token ends the process that does it.

    Errors that llama.cpp reports are left for the caller's own loading to raise.
    """
    if not can_run() or not model.is_file():
        return
    tried = _mark(model)
    if tried.exists():
        return
    said, end = run(__name__, str(model))
    if end:
        raise PackError(
            f"llama.cpp ends with {end} when it loads or runs {model}: the file is damaged, or of a kind this version "
            "does not know; take another GGUF"
        )
    if said.strip() == "sound":
        with suppress(OSError):  # a folder that cannot be written: the next start tries it again
            tried.parent.mkdir(parents=True, exist_ok=True)
            tried.touch()


def _mark(model: Path) -> Path:
    """The empty file that says that ``model`` was tried."""
    stat = model.stat()
    key = f"{model.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{importlib.metadata.version('llama-cpp-python')}"
    name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_folder().parent / "tried" / name


def without_core_dump() -> None:
    """Have a crash of this process leave no file behind."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load_and_draw(model: Path) -> None:
    from edge_tts.runtimes.llama import LlamaPolicy

    config = EngineConfig(width=1, context=256, micro_batch=32, threads=1, gpu_layers=0)
    with closing(LlamaPolicy(model, config)) as policy:
        prompt = policy.tokenize("What is 2 + 3?") or (0,)
        list(policy.generate([Request(prompt, 0, Sampling(max_tokens=2))]))


if __name__ == "__main__":
    without_core_dump()
    _load_and_draw(Path(os.fsdecode(sys.argv[1])))
    print("sound")
