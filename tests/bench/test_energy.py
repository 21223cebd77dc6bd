"""Energy: counters of a powercap tree, of GPUs where there are any, and the estimate in their place."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest

from edge_tts.bench import energy
from edge_tts.bench.energy import EnergyMeter, SampledPower, nvml, open_meter, rapl
from edge_tts.runtimes.device import nvidia_gpu_present

RANGE = 1_000_000_000


def zone(root: Path, number: str, name: str, microjoules: int) -> Path:
    """A zone of the powercap tree as Linux lays it out; gives its counter's file."""
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def put(counter: Path, microjoules: int) -> None:
    """Change a counter at once, as the kernel does: no reader sees half of it."""
    fresh = counter.with_suffix(".new")
    fresh.write_text(f"{microjoules}\n")
    fresh.replace(counter)


@pytest.fixture(autouse=True)
def without_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "gpu" not in request.node.name:
        monkeypatch.setattr(energy, "nvidia_gpu_present", lambda: False)


def test_packages_count_and_their_parts_do_not(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "0", "package-0", 5_000_000), zone(tmp_path, "1", "package-1", 0)
    others = [zone(tmp_path, "0:0", "core", 1_000_000), zone(tmp_path, "2", "psys", 1_000_000)]
    meter = open_meter(10.0, tmp_path)
    assert meter.reason == "RAPL counts 2 processor packages; there is no NVIDIA GPU"
    with meter.measure() as used:
        put(first, 7_500_000)
        put(second, 500_000)
        for other in others:
            put(other, 90_000_000)
    assert used.source == "rapl"
    assert used.joules == pytest.approx(3.0)
    assert used.seconds > 0
    with meter.measure() as again:
        put(second, 600_000)
    assert again.joules == pytest.approx(0.1)


def test_a_counter_that_wraps_around(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", RANGE - 1_000_000)
    with open_meter(None, tmp_path).measure() as used:
        put(counter, 2_000_000)
    assert used.joules == pytest.approx(3.0)


def test_a_counter_that_wraps_around_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SECONDS_BETWEEN_READS", 0.01)
    counter = zone(tmp_path, "0", "package-0", 0)
    with open_meter(None, tmp_path).measure() as used:
        for part in range(1, 8):
            put(counter, part * RANGE * 2 // 5 % RANGE)
            time.sleep(0.25)
    assert used.joules == pytest.approx(7 * 2 / 5 * RANGE / 1e6)


def test_a_counter_that_cannot_be_read_gives_the_estimate_and_the_reason(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 0)
    zone(tmp_path, "1", "package-1", 0).unlink()
    meter = open_meter(20.0, tmp_path)
    assert meter.source == "profile estimate"
    assert f"the processor's energy counter in {tmp_path / 'intel-rapl:1'} cannot be read" in meter.reason
    assert meter.reason.endswith("taken for the profile's 20 W")
    with meter.measure() as used:
        time.sleep(0.05)
    assert used.source == "profile estimate"
    assert used.joules == pytest.approx(20.0 * used.seconds)
    assert used.seconds >= 0.05


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_counter_for_root_alone_says_how_to_open_it(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", 0)
    counter.chmod(0)
    assert rapl(tmp_path) == ([], f"only root may read {counter}, so it needs `sudo chmod a+r {counter}`")


def test_nothing_to_read_and_no_watts_gives_no_joules(tmp_path: Path) -> None:
    meter = open_meter(None, tmp_path)
    assert meter.source is None
    assert "has no energy counter" in meter.reason
    with meter.measure() as used:
        pass
    assert (used.source, used.joules) == (None, None)


def test_a_counter_lost_on_the_way_gives_the_estimate(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", 0)
    with open_meter(20.0, tmp_path).measure() as used:
        counter.unlink()
    assert used.source == "profile estimate"
    assert used.joules == pytest.approx(20.0 * used.seconds)
    assert used.failure is not None
    assert "energy_uj" in used.failure


def test_energy_is_measured_though_the_work_fails(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", 0)
    with pytest.raises(ZeroDivisionError), open_meter(None, tmp_path).measure() as used:  # noqa: PT012
        put(counter, 4_000_000)
        raise ZeroDivisionError
    assert used.joules == pytest.approx(4.0)


def test_sampled_power_is_summed_over_time() -> None:
    readings = iter([(0.0, 100.0), (2.0, 200.0), (3.0, 0.0)])
    at = [0.0]

    def watts() -> float:
        return power[0]

    power = [0.0]
    at[0], power[0] = next(readings)
    counter = SampledPower(watts, lambda: at[0])
    at[0], power[0] = next(readings)
    assert counter.joules() == pytest.approx(300.0)
    at[0], power[0] = next(readings)
    assert counter.joules() == pytest.approx(400.0)


class Board:
    """NVML's answers for two GPUs, of which the second has no energy counter."""

    def __init__(self) -> None:
        self.millijoules = 1_000_000

    def energy(self, handle: int) -> int:
        if handle == 1:
            raise pynvml.NVMLError_NotSupported
        return self.millijoules


def test_gpu_counters_add_to_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(energy, "nvidia_gpu_present", lambda: True)
    answers: dict[str, Any] = {
        "Init": lambda: None,
        "DeviceGetCount": lambda: 2,
        "DeviceGetHandleByIndex": lambda index: index,
        "DeviceGetTotalEnergyConsumption": board.energy,
        "DeviceGetPowerUsage": lambda _: 50_000,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", answer)
    counter = zone(tmp_path, "0", "package-0", 0)
    meter = open_meter(None, tmp_path)
    assert meter.reason == "RAPL counts 1 processor package; NVML counts 2 GPUs, 1 by its power"
    with meter.measure() as used:
        put(counter, 1_000_000)
        board.millijoules += 2_500
    assert used.source == "rapl+nvml"
    assert used.joules is not None
    assert 3.5 + 50 * used.seconds == pytest.approx(used.joules, abs=0.5)
    with open_meter(None, tmp_path / "none").measure() as used:
        board.millijoules += 2_500
    assert used.source == "nvml"


def test_a_gpu_whose_driver_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "nvidia_gpu_present", lambda: True)

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    found, reason = nvml()
    assert found == []
    assert "NVML failed (Driver Not Loaded)" in reason


@pytest.mark.skipif(not nvidia_gpu_present(), reason="there is no NVIDIA GPU")
def test_a_real_gpu_uses_energy() -> None:
    found, _ = nvml()
    with EnergyMeter(found, "nvml", "", None).measure() as used:
        time.sleep(2)
    assert used.joules is not None
    assert 1 < used.joules < 2000 * used.seconds
