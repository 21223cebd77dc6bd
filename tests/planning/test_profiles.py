"""Device profiles: every figure has a source, a wrong file is named, a saved profile loads unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_tts.errors import InputError
from edge_tts.files.folders import data_folder, profiles_folder
from edge_tts.profiles import detect as detection
from edge_tts.profiles.gpu import Gpu
from edge_tts.profiles.loader import (
    FIXED_COST,
    Calibration,
    DecodeSpeed,
    Speeds,
    detect,
    for_this_machine,
    load,
    names,
    save,
)

BUILT_IN = ("datacenter", "desktop-cuda", "jetson-orin", "laptop-cpu", "phone", "raspberry-pi-5")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))


def test_home_moves_packs_and_profiles(tmp_path: Path) -> None:
    assert data_folder() == tmp_path / "home" / "packs"
    assert profiles_folder() == tmp_path / "home" / "profiles"


def test_folders_without_home_are_the_platforms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_REASON_HOME")
    assert data_folder().is_absolute()
    assert data_folder().parts[-2:] == ("edge-reason", "packs")
    assert profiles_folder().name == "profiles"


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_profile_states_a_source_for_every_figure(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert all(len(source) > 10 for source in profile.sources.values())
    rising = [p.tokens_per_s for p in profile.stated.decode]
    assert rising == sorted(rising)


def test_laptop_lies_inside_the_measured_ranges() -> None:
    decode = {p.width: p.tokens_per_s for p in load("laptop-cpu").stated.decode}
    assert 78 <= decode[1] <= 101
    assert 167 <= decode[8] <= 234
    assert 260 <= decode[32] <= 287


def test_decode_speed_between_and_beyond_the_points() -> None:
    speeds = Speeds(100, (DecodeSpeed(1, 200, 10), DecodeSpeed(4, 200, 30), DecodeSpeed(4, 800, 5)), 50, 1)
    assert speeds.decode_at(1, 200, 100) == 10
    assert speeds.decode_at(2, 200, 100) == pytest.approx(20)
    assert speeds.decode_at(64, 200, 100) == 30
    assert speeds.decode_at(4, 700, 100) == 5
    assert speeds.decode_at(4, 200, FIXED_COST + 200) == pytest.approx(15)
    assert speeds.prefill_at(50) == 100
    assert replace(speeds, verifier_parameters=10).verifier_at(20) == 0.5


@pytest.mark.parametrize(
    ("parameters", "measured"),
    [
        (494_032_768, {1: 44, 4: 74, 8: 89, 16: 116, 32: 129}),
        (1_543_714_304, {1: 26, 4: 32, 16: 50, 32: 61}),
    ],
    ids=["Qwen2.5-0.5B", "Qwen2.5-1.5B"],
)
def test_speeds_of_a_small_model_predict_those_of_larger_ones(parameters: int, measured: dict[int, float]) -> None:
    """Measured with Q4_K_M files on two cores with AVX2; the profile states a 135M model's."""
    speeds = load("laptop-cpu").stated
    for width, tokens_per_s in measured.items():
        assert speeds.decode_at(width, 256, parameters) == pytest.approx(tokens_per_s, rel=0.31)


def test_saved_profile_comes_back_and_takes_precedence() -> None:
    speeds = Speeds(7, (DecodeSpeed(1, 128, 12.5), DecodeSpeed(8, 128, 60.0)), 300.0, 2000.0)
    known = Calibration(speeds, "2025-01-02", 'x86 "fast" \\ ü', "some-pack 1")
    mine = replace(load("phone"), calibration=known, memory_mb=700.0)
    path = profiles_folder() / "phone.toml"
    save(mine, path)
    assert load("phone") == mine
    assert load(path) == mine
    assert load("phone").speeds == speeds
    assert [p.name for p in path.parent.iterdir()] == ["phone.toml"]
    assert names() == BUILT_IN


def test_large_figures_survive_saving(tmp_path: Path) -> None:
    mine = replace(load("datacenter"), memory_mb=1_234_567.0)
    save(mine, tmp_path / "big.toml")
    assert load(tmp_path / "big.toml").memory_mb == 1_234_567.0


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    save(load("phone"), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="is full") as caught:
        save(load("laptop-cpu"), path)
    assert caught.value.exit_code == 4  # type: ignore[attr-defined]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.toml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("memory_mb = 512", "memory_mb = -5"), r"memory_mb must be a number > 0\.0, found -5"),
        (lambda t: t.replace("memory_mb = 512", "memory_mb = true"), r"memory_mb must be a number, found True"),
        (lambda t: t.replace("memory_mb = 512", "memory_mb = inf"), r"memory_mb must be a number <= .* found inf"),
        (lambda t: t.replace("memory_mb = 512", ""), r"memory_mb is missing"),
        (lambda t: t.replace("threads = 4", "threads = 0"), r"threads must be a whole number >= 1, found 0"),
        (lambda t: t.replace("gpu = false", 'gpu = "no"'), r"gpu must be true or false, found 'no'"),
        (
            lambda t: t.replace("width = 8", "width = 8.5"),
            r"speeds\.decode\[1\]\.width must be a whole number, found 8\.5",
        ),
        (lambda t: t.replace("prefill = 800", "prefil = 800"), r"unknown key speeds.prefil = 800"),
        (lambda t: t.replace('watts = "est', 'wats = "est'), r"sources has no entry 'watts'"),
        (lambda t: "calibrated = 3\n" + t, r"calibrated must be an object of named values, found 3"),
        (lambda t: t[: len(t) // 2], r"cannot read the profile"),
    ],
)
def test_a_wrong_file_is_named_with_key_and_value(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "mine.toml"
    source = Path(detection.__file__).with_name("phone.toml")
    path.write_text(change(source.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_unknown_profiles_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no profile 'toaster'; choose one of datacenter, "):
        load("toaster")
    with pytest.raises(InputError, match="neither the name of a profile nor"):
        load("../phone")
    with pytest.raises(InputError, match="cannot read the profile"):
        load("nowhere.toml")


@pytest.mark.parametrize(
    ("board", "gpu", "expected", "reason"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", None, "raspberry-pi-5", "Raspberry Pi 5 Model B"),
        ("NVIDIA Jetson Orin Nano Developer Kit", ("Orin", 7000.0), "jetson-orin", "Jetson Orin Nano"),
        ("", ("NVIDIA GeForce RTX 4070", 12282.0), "desktop-cuda", "RTX 4070 with 12 GB"),
        ("", ("NVIDIA H200", 143771.0), "datacenter", "H200 with 140 GB"),
        ("", None, "laptop-cpu", r"no NVIDIA GPU; \d+ CPU core"),
    ],
)
def test_detection_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, board: str, gpu: tuple[str, float] | None, expected: str, reason: str
) -> None:
    monkeypatch.setattr(detection, "_board_model", lambda: board)
    monkeypatch.setattr(detection, "nvidia_gpu", lambda: gpu)
    name, why = detection.detected()
    assert name == expected
    assert re.search(reason, why)


def test_detection_keeps_to_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tts.profiles.loader.memory_limit_mb", lambda: 901.0)
    profile, reason = detect()
    assert profile.memory_mb == 450
    assert "half of this machine" in reason


def test_detection_keeps_to_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_board_model", lambda: "Raspberry Pi 5 Model B Rev 1.0")
    monkeypatch.setattr("edge_tts.profiles.loader.cores", lambda: 2)
    profile, reason = detect()
    assert profile.threads == 2
    assert "2 threads instead of 4" in reason


RADEON = Gpu("vulkan", "AMD Radeon RX 7600", 7000.0, 8192.0, False)


def test_detection_uses_any_gpu_that_llama_cpp_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_board_model", lambda: "")
    monkeypatch.setattr(detection, "nvidia_gpu", lambda: None)
    monkeypatch.setattr("edge_tts.profiles.loader.usable_gpus", lambda: (RADEON,))
    profile, reason = detect()
    assert (profile.name, profile.gpu, profile.gpu_memory_mb) == ("laptop-cpu", True, 6300)
    assert "llama.cpp uses the GPU AMD Radeon RX 7600 by vulkan and 6300 MB of its memory" in reason
    monkeypatch.setattr("edge_tts.profiles.loader.usable_gpus", lambda: (Gpu("metal", "M3", 9000, 12000, True),))
    profile, reason = detect()
    assert (profile.gpu, profile.gpu_memory_mb) == (True, None)
    assert reason.endswith("llama.cpp uses the GPU M3 by metal")


def test_a_gpu_that_llama_cpp_does_not_use_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_board_model", lambda: "")
    monkeypatch.setattr(detection, "nvidia_gpu", lambda: ("NVIDIA GeForce RTX 4070", 12282.0))
    monkeypatch.setattr("edge_tts.profiles.loader.usable_gpus", lambda: ())
    profile, reason = detect()
    assert (profile.name, profile.gpu) == ("laptop-cpu", False)
    assert "RTX 4070 with 12 GB" in reason
    assert "does not use it, so this is laptop-cpu" in reason


def test_a_profile_of_another_device_gets_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    desktop = load("desktop-cuda")
    for gpus, own in (((), None), ((RADEON,), 6300), ((Gpu("cuda", "H200", 140_000, 143_000, False),), 10_240)):
        monkeypatch.setattr("edge_tts.profiles.loader.usable_gpus", lambda gpus=gpus: gpus)
        assert for_this_machine(desktop).gpu_memory_mb == own
        assert for_this_machine(load("laptop-cpu")) == load("laptop-cpu")


def test_a_hanging_or_broken_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert detection.nvidia_gpu() is None
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\n")
    assert detection.nvidia_gpu() == ("NVIDIA H200", 143771.0)
