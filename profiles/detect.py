"""Which kind of device this is, according to the operating system."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from edge_tts.profiles.control_groups import MEMBERSHIP, ROOT, cpu_limit, memory_limit

_BOARD = Path("/proc/device-tree/model")
_DATACENTER_MB = 32 * 1024
"""GPUs with more memory than this (MiB) are made for data centers."""


def detected() -> tuple[str, str]:
    """Name of the built-in profile that is closest to this machine, and the reason."""
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
        return kind, f"the GPU is {name} with {memory_mb / 1024:.0f} GB (`edge-reason doctor` says whether it is used)"
    return "laptop-cpu", f"the board is not a known one and there is no NVIDIA GPU; {allowance()}"


def nvidia_gpu() -> tuple[str, float] | None:
    """Name and memory (MiB) of the first NVIDIA GPU that ``nvidia-smi`` reports, or None."""
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


def memory_limit_mb(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Memory in MiB that this process may use: the machine's, or less where its control groups allow less."""
    total = int(psutil.virtual_memory().total)
    return min(total, memory_limit(root, membership) or total) / 2**20


def cores(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Physical cores that this process may use, at least 1: the machine's, or less where its affinity or its control
    groups allow less. Part of a core counts as one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_limit(root, membership)
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed, math.ceil(quota or allowed)))


def allowance() -> str:
    """What this process may use, in words."""
    count = cores()
    return f"{count} CPU core{'s' if count > 1 else ''}, {memory_limit_mb() / 1024:.1f} GB of memory"


def _board_model() -> str:
    try:
        return _BOARD.read_bytes().decode(errors="replace").strip("\0 \n")
    except OSError:
        return ""
