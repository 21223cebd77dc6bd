"""What kind of device this is, from what the operating system says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

_BOARD = Path("/proc/device-tree/model")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_DATACENTER_MB = 32 * 1024
"""GPUs with more memory than this are not sold for desktops' graphics."""


def detected() -> tuple[str, str]:
    """Name of the built-in profile nearest to this machine, and why."""
    board = _board_model()
    if "Jetson" in board:
        return "jetson-orin", f"the board is {board}"
    if "Raspberry Pi" in board:
        return "raspberry-pi-5", f"the board is {board}"
    if sys.platform == "android" or "ANDROID_ROOT" in os.environ:
        return "phone", "this is Android"
    gpu = nvidia_gpu()
    if gpu:
        name, memory_mb = gpu
        kind = "datacenter" if memory_mb > _DATACENTER_MB else "desktop-cuda"
        return kind, f"there is a GPU, {name} with {memory_mb / 1024:.0f} GB (see `edge-reason doctor` for its use)"
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    memory_gb = memory_limit_mb() / 1024
    return "laptop-cpu", f"there is no known board and no NVIDIA GPU; {cores} CPU cores, {memory_gb:.1f} GB of memory"


def nvidia_gpu() -> tuple[str, float] | None:
    """Name and memory (MiB) of the first NVIDIA GPU as ``nvidia-smi`` reports it, or None."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        name, memory = out.splitlines()[0].rsplit(",", 1)
        return name.strip(), float(memory)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def memory_limit_mb() -> float:
    """Memory this process may use: the machine's, or its control group's where that is less; in MiB."""
    limits = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits) / 2**20


def _board_model() -> str:
    try:
        return _BOARD.read_bytes().decode(errors="replace").strip("\0 \n")
    except OSError:
        return ""
