"""Joules that this machine uses, from the counters of processor and GPU, or else estimated.

RAPL counts the energy of each processor package and is read through Linux's powercap
(https://docs.kernel.org/power/powercap/powercap.html). NVML counts that of each NVIDIA board. Both include what other
programs use, and neither includes the rest of the machine. The estimate is a profile's watts times the seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from edge_tts.runtimes.device import nvidia_gpu_present

POWERCAP = Path("/sys/class/powercap")
SECONDS_BETWEEN_READS = 0.5
"""RAPL's counters take minutes to wrap around; a power that is sampled needs shorter intervals."""

Source = Literal["rapl", "rapl+nvml", "nvml", "profile estimate"]


class Counter(Protocol):
    """The energy of one device."""

    def joules(self) -> float:
        """Joules since a fixed moment in the past; never falls. Raises the driver's error where reading fails."""


class RaplPackage:
    """One processor package. Its counter wraps around, and must be read at least once in between."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ValueError where the counter cannot be read."""
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._total = 0

    def joules(self) -> float:
        now = int(self._file.read_text())
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


class SampledPower:
    """A device that reports only its power, taken to change linearly between two readings."""

    def __init__(self, watts: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._watts, self._clock = watts, clock
        self._at, self._power, self._total = clock(), watts(), 0.0

    def joules(self) -> float:
        at, power = self._clock(), self._watts()
        self._total += (at - self._at) * (power + self._power) / 2
        self._at, self._power = at, power
        return self._total


class NvmlEnergy:
    """A GPU that counts its own energy, in millijoules since the driver was loaded (Volta and later)."""

    def __init__(self, millijoules: Callable[[], int]) -> None:
        self._millijoules = millijoules

    def joules(self) -> float:
        return self._millijoules() / 1e3


@dataclass
class Measurement:
    """The energy used in a ``with`` block. It is complete when the block has ended."""

    source: Source | None
    """None where this machine's energy is unknown."""
    joules: float | None = None
    """None where ``source`` is."""
    seconds: float = 0.0
    failure: str | None = None
    """Why a counter could not be read in the block, so that ``joules`` is an estimate; None where none failed."""


class EnergyMeter:
    """Measures the joules of a block, or estimates them where no counter can be read."""

    def __init__(self, counters: Sequence[Counter], source: Source | None, reason: str, watts: float | None) -> None:
        self.source = source
        self.reason = reason
        """Why this source is used, one clause for each kind of counter."""
        self._counters = counters
        self._watts = watts
        self._lock = threading.Lock()

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Measure the block, while a thread reads the counters every ``SECONDS_BETWEEN_READS``."""
        found = Measurement(self.source)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(SECONDS_BETWEEN_READS):
                self._read(found)

        begin, before = time.monotonic(), self._read(found)
        watcher = threading.Thread(target=watch, name="energy", daemon=True)
        if self._counters:
            watcher.start()
        try:
            yield found
        finally:
            stop.set()
            if self._counters:
                watcher.join()
            after = self._read(found)
            found.seconds = time.monotonic() - begin
            self._settle(found, after - before)

    def _read(self, found: Measurement) -> float:
        """The sum of all counters in joules; 0 once one has failed, which is recorded in ``found``."""
        if found.failure:
            return 0.0
        try:
            with self._lock:
                return sum(counter.joules() for counter in self._counters)
        except Exception as error:  # NVML's errors and the file system's share no base
            found.failure = f"a counter could no longer be read: {error}"
            return 0.0

    def _settle(self, found: Measurement, joules: float) -> None:
        if self._counters and not found.failure:
            found.joules = joules
            return
        found.source = "profile estimate" if self._watts is not None else None
        found.joules = self._watts * found.seconds if self._watts is not None else None


def open_meter(watts: float | None, root: Path = POWERCAP) -> EnergyMeter:
    """The best meter that this machine has. ``watts`` is the power that a profile states, for an estimate."""
    packages, why_rapl = rapl(root)
    gpus, why_nvml = nvml()
    reason = f"{why_rapl}; {why_nvml}"
    if packages:
        return EnergyMeter([*packages, *gpus], "rapl+nvml" if gpus else "rapl", reason, watts)
    if gpus:
        return EnergyMeter(gpus, "nvml", reason, watts)
    if watts is None:
        return EnergyMeter((), None, f"{reason}; and no profile states the power", None)
    return EnergyMeter((), "profile estimate", f"{reason}; taken for the profile's {watts:g} W", watts)


def rapl(root: Path = POWERCAP) -> tuple[list[Counter], str]:
    """The counters of all processor packages and one clause about them; no counter where one cannot be read.

    Only packages are counted: cores and graphics are parts of a package, and "psys" contains it.
    """
    found: list[Counter] = []
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            if (folder / "name").read_text().startswith("package"):
                found.append(RaplPackage(folder))
        except PermissionError as error:
            return [], f"only root may read {error.filename}, so it needs `sudo chmod a+r {error.filename}`"
        except (OSError, ValueError) as error:
            return [], f"the processor's energy counter in {folder} cannot be read ({error})"
    if not found:
        return [], f"{root} has no energy counter of a processor package"
    return found, f"RAPL counts {len(found)} processor package{'s' if len(found) > 1 else ''}"


def nvml() -> tuple[list[Counter], str]:
    """The counters of all NVIDIA GPUs and one clause about them."""
    if not nvidia_gpu_present():
        return [], "there is no NVIDIA GPU"
    try:
        import pynvml
    except ImportError:
        return (
            [],
            "the GPU is not counted without nvidia-ml-py; run `pip install 'edge-reasoning-runtime[bench]'`",
        )
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = [_gpu(pynvml, handle) for handle in handles]
    except pynvml.NVMLError as error:
        return [], f"the GPU is not counted, since NVML failed ({error})"
    sampled = sum(isinstance(counter, SampledPower) for counter in found)
    note = f", {sampled} by its power" if sampled else ""
    return found, f"NVML counts {len(found)} GPU{'s' if len(found) > 1 else ''}{note}"


def _gpu(pynvml: Any, handle: Any) -> Counter:
    """A counter over the GPU's own energy counter, or else over its power. Raises NVMLError where it has neither."""
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError_NotSupported:
        return SampledPower(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)
    return NvmlEnergy(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
