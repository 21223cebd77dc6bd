"""The graphics processors that the installed llama.cpp can compute on, whoever made them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_LIBRARY = re.compile(r"(?:lib)?ggml-(?:cuda|hip|metal|vulkan|sycl|musa|opencl|cann|webgpu)\b")
_BACKENDS = {"mtl": "metal", "hip": "rocm"}
"""Names of backends that people call otherwise than ggml does."""
_GPU, _SHARING_GPU = 1, 2
"""GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU of enum ggml_backend_dev_type."""
_IGNORED = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *message: None)
MIB = 2**20


@dataclass(frozen=True)
class Gpu:
    """One processor."""

    backend: str
    """What computes on it: "cuda", "metal", "vulkan", "rocm", "sycl" ..."""
    name: str
    free_mb: float
    """Of its memory, in MiB."""
    total_mb: float
    shares_memory: bool
    """Whether its memory is the machine's own."""


@lru_cache(1)
def usable_gpus() -> tuple[Gpu, ...]:
    """The processors, the one that is used first; none, without loading anything, where llama.cpp is built for CPUs."""
    if not built_for_gpus():
        return ()
    from llama_cpp._ggml import libggml

    with _silent(libggml):
        return tuple(_devices(libggml))


@lru_cache(1)
def built_for_gpus() -> bool:
    """Whether the installed llama.cpp has a library for GPUs, which it loads whether or not there is one."""
    found = find_spec("llama_cpp")
    folders = (found.submodule_search_locations if found else None) or ()
    return any(_LIBRARY.match(file.name) for folder in folders for file in (Path(folder) / "lib").glob("*ggml-*"))


@contextmanager
def _silent(library: Any) -> Iterator[None]:
    """Without ggml's log, in which a backend tells every process what it found."""
    before, about = ctypes.c_void_p(), ctypes.c_void_p()
    library.ggml_log_get(ctypes.byref(before), ctypes.byref(about))
    library.ggml_log_set(_IGNORED, None)
    try:
        yield
    finally:
        library.ggml_log_set(before, about)


def _devices(library: Any) -> list[Gpu]:
    """What ggml's registry of devices holds (ggml-backend.h)."""
    for name, result, arguments in (
        ("dev_count", ctypes.c_size_t, ()),
        ("dev_get", ctypes.c_void_p, (ctypes.c_size_t,)),
        ("dev_type", ctypes.c_int, (ctypes.c_void_p,)),
        ("dev_description", ctypes.c_char_p, (ctypes.c_void_p,)),
        ("dev_memory", None, (ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t))),
        ("dev_backend_reg", ctypes.c_void_p, (ctypes.c_void_p,)),
        ("reg_name", ctypes.c_char_p, (ctypes.c_void_p,)),
    ):
        function = getattr(library, f"ggml_backend_{name}")
        function.restype, function.argtypes = result, arguments
    gpus = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        kind = library.ggml_backend_dev_type(device)
        if kind not in (_GPU, _SHARING_GPU):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        registered = library.ggml_backend_reg_name(library.ggml_backend_dev_backend_reg(device)).decode().lower()
        backend = _BACKENDS.get(registered, registered)
        name = library.ggml_backend_dev_description(device).decode(errors="replace")
        shares = kind == _SHARING_GPU or backend == "metal"
        gpus.append(Gpu(backend, name, free.value / MIB, total.value / MIB, shares))
    return sorted(gpus, key=lambda gpu: gpu.shares_memory)  # llama.cpp takes integrated ones where there is no other
