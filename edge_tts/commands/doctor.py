"""``edge-reason doctor``: what works on this machine, what does not, and why.

A check never raises: an error inside a check becomes its result.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edge_tts.errors import EdgeError

if TYPE_CHECKING:
    from edge_tts.profiles.gpu import Gpu

LEAST_PYTHON = (3, 11)
LEAST_FREE_MB = 300
"""Disk space to assemble a pack: the base model, and the pack twice while it is written."""
_CLASH = "edge-tts"
_WITHOUT_AMX = " ".join(f'{name}="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"' for name in ("CFLAGS", "CXXFLAGS"))
_REINSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36"
_FLAGS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
"""llama.cpp's names of CPU features, by their flags in /proc/cpuinfo."""

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: Literal["ok", "warning", "failed"]
    """"failed": solving does not work. "warning": solving works, but something could be better."""
    detail: str
    fix: str | None = None
    """What to do about it, or None."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Check whether solving works on this machine; exit code 1 if it does not."""
    checks = examine()
    ready = works(checks)
    if as_json:
        click.echo(json.dumps({"works": ready, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        for check in checks:
            click.echo(f"{_MARKS[check.status]}  {check.name}: {check.detail}")
            if check.fix:
                click.echo(f"         -> {check.fix}")
        click.echo("solving works here" if ready else "solving does not work here; see the checks marked FAILED")
    if not ready:
        click.get_current_context().exit(1)


def examine() -> tuple[Check, ...]:
    """Run all checks, in order. Checking a pack reads all its files."""
    checks = (_python, _clash, _cpu, _llama, _gpu, _onnxruntime, _telemetry, _data_folder, _profile)
    found = [check for run in checks for check in _guarded(run)]
    return (*found, *_guarded(_packs))


def works(checks: tuple[Check, ...]) -> bool:
    """Whether no check failed."""
    return all(check.status != "failed" for check in checks)


def _guarded(check: Callable[[], list[Check]]) -> list[Check]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check()
    except EdgeError as error:
        return [Check(name, "failed", str(error))]
    except Exception as error:
        return [Check(name, "failed", f"{type(error).__name__}: {error}".partition("\n")[0])]


def _python() -> list[Check]:
    here = f"{platform.system()} {platform.machine()}"
    detail = f"{platform.python_implementation()} {platform.python_version()} on {here}"
    if sys.version_info >= LEAST_PYTHON:
        return [Check("python", "ok", detail)]
    return [Check("python", "failed", detail, f"install Python {'.'.join(map(str, LEAST_PYTHON))} or newer")]


def _clash() -> list[Check]:
    version = _installed(_CLASH)
    if version is None:
        return [Check("import name", "ok", f"the distribution {_CLASH} (text to speech) is not installed")]
    detail = (
        f"the distribution {_CLASH} {version} (text to speech) has the same import name, edge_tts; "
        "installed together the two overwrite each other's files"
    )
    fix = f"pip uninstall {_CLASH} edge-reasoning-runtime, then install each in an environment of its own"
    return [Check("import name", "warning", detail, fix)]


def _cpu() -> list[Check]:
    from edge_tts.profiles.detect import allowance

    detail = f"{allowance()} for this process; {', '.join(_cpu_features()) or 'features unknown'}"
    return [Check("cpu", "ok", detail)]


def _cpu_features() -> list[str]:
    """llama.cpp's names of the features of this CPU that it can use; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return [name for flag, name in _FLAGS.items() if flag in flags]


def _llama() -> list[Check]:
    fix = f"{_REINSTALL} (it needs a C++ compiler)"
    try:
        import llama_cpp

        from edge_tts.runtimes.llama_native import initialise

        initialise()
        info = llama_cpp.llama_print_system_info().decode(errors="replace")
    except Exception as error:  # a missing library, or one built for another CPU, fails in many ways
        return [Check("llama.cpp", "failed", f"llama-cpp-python cannot be used: {error}", fix)]
    return [_llama_check(info, _cpu_features(), _installed("llama-cpp-python") or "of unknown version")]


def _llama_check(info: str, features: list[str], version: str) -> Check:
    """``info`` is llama.cpp's description of its build: "CPU : AVX2 = 1 | REPACK = 1 | "."""
    used = {item.partition("=")[0].split(":")[-1].strip() for item in info.split("|") if item.strip().endswith("= 1")}
    unused = [name for name in features if name not in used]
    detail = f"llama-cpp-python {version}, built for {', '.join(sorted(used)) or 'a CPU without vector features'}"
    if "AMX_INT8" in used:
        detail += "; its AMX kernels crash, so they are not used, nor are the faster kernels that come with them"
        return Check("llama.cpp", "warning", detail, f"for more speed: {_WITHOUT_AMX} {_REINSTALL}")
    if not unused:
        return Check("llama.cpp", "ok", detail)
    rebuild = f'for more speed: CMAKE_ARGS="-DGGML_NATIVE=on" {_REINSTALL}'
    return Check("llama.cpp", "warning", f"{detail}; this CPU also has {', '.join(unused)}", rebuild)


def _gpu() -> list[Check]:
    from edge_tts.profiles.detect import nvidia_gpu
    from edge_tts.profiles.gpu import usable_gpus
    from edge_tts.runtimes import device

    named = nvidia_gpu()
    return [_gpu_check(usable_gpus(), device.nvidia_gpu_present() or named is not None, named[0] if named else None)]


def _gpu_check(usable: Sequence[Gpu], present: bool, name: str | None) -> Check:
    from edge_tts.runtimes import device

    if usable:
        gpu = usable[0]
        memory = "the machine's memory" if gpu.shares_memory else f"{gpu.free_mb / 1024:.1f} GB free"
        return Check("gpu", "ok", f"llama.cpp offloads to the GPU {gpu.name} by {gpu.backend}, {memory}")
    if present:
        what = name or "an NVIDIA GPU"
        detail = f"there is {what}, but llama-cpp-python was built without GPU support and does not use it"
        return Check("gpu", "warning", detail, device.CUDA_WHEEL)
    return Check("gpu", "ok", "there is no NVIDIA GPU, and llama.cpp runs on the CPU")


def _onnxruntime() -> list[Check]:
    fix = "pip install --force-reinstall onnxruntime"
    try:
        from edge_tts.runtimes.privacy import import_onnxruntime

        onnxruntime = import_onnxruntime()

        providers = onnxruntime.get_available_providers()
    except Exception as error:
        return [Check("onnx runtime", "failed", f"onnxruntime cannot be used: {error}", fix)]
    installed = (_installed("onnxruntime"), _installed("onnxruntime-gpu"))
    return [_onnxruntime_check(providers, onnxruntime.__version__, *installed)]


def _onnxruntime_check(providers: list[str], running: str, cpu: str | None, cuda: str | None) -> Check:
    detail = f"onnxruntime {running} with {', '.join(providers)}"
    if cpu and cuda:
        detail += f"; both onnxruntime {cpu} and onnxruntime-gpu {cuda} are installed and overwrite each other's files"
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one you want"
        return Check("onnx runtime", "warning", detail, fix)
    return Check("onnx runtime", "ok", detail)


def _telemetry() -> list[Check]:
    from edge_tts.runtimes.privacy import SETTINGS

    on = [f"{name}={os.environ.get(name)}" for name, off in SETTINGS.items() if os.environ.get(name) != off]
    if on:
        fix = f"unset {' '.join(name.partition('=')[0] for name in on)}"
        return [Check("telemetry", "warning", f"libraries may send usage data: {', '.join(on)}", fix)]
    return [Check("telemetry", "ok", "that of ONNX Runtime, the Hugging Face hub and Ray is switched off")]


def _data_folder() -> list[Check]:
    from edge_tts.files.folders import HOME_VARIABLE, data_folder

    folder = data_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    fix = f"set {HOME_VARIABLE} to a folder you own on a disk with {LEAST_FREE_MB} MB free"
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        if ready := _ready():
            detail += f"; what is there works ({', '.join(ready)}), but nothing can be added"
            return [Check("data folder", "warning", detail, fix)]
        return [Check("data folder", "failed", detail, fix)]
    free = shutil.disk_usage(existing).free / 2**20
    if free < LEAST_FREE_MB:
        return [
            Check(
                "data folder",
                "warning",
                f"{folder} has {free:.0f} MB free, and assembling a pack needs {LEAST_FREE_MB} MB",
                fix,
            )
        ]
    return [Check("data folder", "ok", f"{folder} can be written and has {free / 1024:.1f} GB free")]


def _ready() -> list[str]:
    """Names of what answers questions without writing anything: assembled packs and models on this machine."""
    from edge_tts.packs import catalogue, model_files, pack

    packs = [name for name in pack.pack_names() if pack.is_assembled(pack.find_pack(name))]
    return packs + [name for name, entry in catalogue.entries().items() if model_files.find(entry)]


def _profile() -> list[Check]:
    from edge_tts.profiles.loader import detect

    profile, reason = detect()
    fix = None if profile.calibration else "for better predictions: edge-reason profile calibrate"
    return [Check("profile", "ok", f"{profile.name}: {reason}", fix)]


def _packs() -> list[Check]:
    from edge_tts.packs import pack

    names = pack.pack_names()
    found = [_pack(name) for name in names]
    if pack.DEFAULT not in names:
        detail = f"the default pack {pack.DEFAULT} is missing; known packs: {', '.join(names) or 'none'}"
        fix = "pip install --force-reinstall edge-reasoning-runtime"
        found.append(Check(f"pack {pack.DEFAULT}", "failed", detail, fix))
    return found


def _pack(name: str) -> Check:
    from edge_tts.packs import pack

    title = f"pack {name}"
    # Solving needs no other pack than the default one.
    bad: Literal["warning", "failed"] = "failed" if name == pack.DEFAULT else "warning"
    try:
        found = pack.find_pack(name)
        problems = pack.pack_problems(found)
    except EdgeError as error:
        return Check(title, bad, str(error))
    if problems:
        fix = f"delete the folder {found.folder}, then assemble or install the pack again"
        return Check(title, bad, "; ".join(problems), fix)
    state = f"sound, in {found.folder}" if pack.is_assembled(found) else "sound, assembled on first use"
    return Check(title, "ok", f"version {found.version}, {state}")


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
