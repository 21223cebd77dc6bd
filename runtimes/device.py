"""Which device and how many threads to use; each choice comes with its reason."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_tts.profiles.detect import cores
from edge_tts.profiles.gpu import usable_gpus

CUDA_WHEEL = 'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36'


def nvidia_gpu_present() -> bool:
    """True where the NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def offload(wanted: int | None, build_can_offload: bool) -> tuple[int, str, str]:
    """Layers to offload (-1 is all, 0 none), the device's name ("cpu", "cuda", "vulkan", "metal" ...) and why.

    ``build_can_offload`` is ``llama_supports_gpu_offload()``: true only where the build has a GPU
    backend and that backend sees a device.
    """
    if wanted == 0:
        return 0, "cpu", "the CPU was asked for"
    if build_can_offload and (gpus := usable_gpus()):
        gpu = gpus[0]
        return (-1 if wanted is None else wanted), gpu.backend, f"the llama.cpp build sees a GPU, {gpu.name}"
    if nvidia_gpu_present():
        return (
            0,
            "cpu",
            f"there is an NVIDIA GPU, but this llama-cpp-python build cannot use it; rebuild it with: {CUDA_WHEEL}",
        )
    return 0, "cpu", "no GPU was found"


def threads(wanted: int | None) -> int:
    """Compute threads: ``wanted``, or one per physical core that this process may use."""
    return cores() if wanted is None else max(1, wanted)
