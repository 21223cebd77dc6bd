"""``doctor``: each finding from what was found, and an exit code that says whether solving works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import standin
from click.testing import CliRunner

from edge_tts.commands import doctor
from edge_tts.commands.doctor import command
from edge_tts.packs.pack import Pack, find_pack, prepare_pack
from edge_tts.profiles.gpu import Gpu

RUN = [sys.executable, "-m", "edge_tts"]

BUILD = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | FMA = 1 | REPACK = 1 | "


def test_features_the_build_leaves_unused_are_named() -> None:
    assert doctor._llama_check(BUILD, ["AVX2", "FMA"], "1").status == "ok"
    slow = doctor._llama_check(BUILD, ["AVX2", "AVX512"], "1")
    assert slow.status == "warning"
    assert slow.detail.endswith("this CPU also has AVX512")
    assert slow.fix is not None
    assert "GGML_NATIVE" in slow.fix


def test_kernels_that_are_left_out_are_said() -> None:
    found = doctor._llama_check(BUILD + "AMX_INT8 = 1 | ", ["AVX2"], "1")
    assert found.status == "warning"
    assert "AMX kernels crash" in found.detail
    assert found.fix is not None
    assert 'CXXFLAGS="-mno-amx-tile' in found.fix


def test_a_cpu_build_beside_a_gpu_is_said_with_the_command_to_fix_it() -> None:
    said = doctor._gpu_check((), present=True, name="NVIDIA H200")
    assert said.status == "warning"
    assert "NVIDIA H200" in said.detail
    assert said.fix is not None
    assert said.fix.startswith('CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp')
    assert doctor._gpu_check((), present=False, name=None).status == "ok"


def test_a_gpu_is_named_with_what_computes_on_it() -> None:
    said = doctor._gpu_check((Gpu("vulkan", "AMD Radeon RX 7600", 7680, 8192, False),), present=False, name=None)
    assert said.status == "ok"
    assert said.detail == "llama.cpp offloads to the GPU AMD Radeon RX 7600 by vulkan, 7.5 GB free"
    said = doctor._gpu_check((Gpu("metal", "Apple M3", 9000, 12000, True),), present=False, name=None)
    assert said.detail == "llama.cpp offloads to the GPU Apple M3 by metal, the machine's memory"


def test_two_onnxruntimes_are_said() -> None:
    assert doctor._onnxruntime_check(["CPUExecutionProvider"], "1.32", "1.32", None).status == "ok"
    both = doctor._onnxruntime_check(["CPUExecutionProvider"], "1.32", "1.32", "1.31")
    assert both.status == "warning"
    assert "overwrite each other" in both.detail


def test_the_clash_with_edge_tts_is_found_by_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._clash()[0].status == "ok"
    info = tmp_path / "edge_tts-7.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-tts\nVersion: 7.0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = doctor._clash()
    assert found.status == "warning"
    assert "edge-tts 7.0.0" in found.detail


def test_a_sound_machine_with_a_sound_pack_works(tiny: standin.StandIn) -> None:
    done = CliRunner().invoke(command, ["--json"])
    report = json.loads(done.output)
    by_name = {check["name"]: check for check in report["checks"]}
    assert done.exit_code == 0, done.output
    assert report["works"]
    assert {"python", "import name", "cpu", "llama.cpp", "gpu", "onnx runtime", "data folder", "profile"} < set(by_name)
    assert by_name[f"pack {standin.NAME}"]["status"] == "ok"
    assert "llama-cpp-python" in by_name["llama.cpp"]["detail"]


def test_a_damaged_default_pack_fails(tiny: standin.StandIn) -> None:
    model = tiny.pack.folder / "prm.onnx"
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 1
    assert "FAILED   pack" in done.output
    assert "prm.onnx" in done.output
    assert "solving does not work here" in done.output


def test_a_data_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr("edge_tts.packs.model_files.find", lambda _: None)
    (found,) = doctor._data_folder()
    assert found.status == "failed"
    assert found.fix is not None
    assert "EDGE_REASON_HOME" in found.fix


def test_a_data_folder_that_is_read_only_and_ready_is_not_called_broken(
    tiny: standin.StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr("edge_tts.packs.model_files.find", lambda _: None)
    assert doctor._data_folder()[0].status == "failed"
    prepare_pack(find_pack(standin.NAME), base=tiny.base)
    (found,) = doctor._data_folder()
    assert found.status == "warning"
    assert found.detail.endswith(f"; what is there works ({standin.NAME}), but nothing can be added")


@pytest.fixture
def read_only(home: Path, pack: Pack, tmp_path: Path) -> Iterator[Path]:
    """The data folder with the built-in pack assembled, on a disk that cannot be written."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "--bind", home, folder], timeout=60).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], timeout=60, check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], timeout=60, check=True)


def test_a_read_only_data_folder_with_a_ready_pack_works(read_only: Path) -> None:
    env = {**os.environ, "EDGE_REASON_HOME": str(read_only)}
    report = subprocess.run([*RUN, "doctor"], env=env, capture_output=True, text=True, timeout=120)
    assert report.returncode == 0, report.stdout
    assert "warning  data folder" in report.stdout
    assert "Read-only file system; what is there works (smol-math" in report.stdout
    question = ["solve", "--strategy", "greedy", "What is 3 times 14?"]
    solved = subprocess.run([*RUN, *question], env=env, capture_output=True, text=True, timeout=120)
    assert solved.returncode == 0, solved.stderr
    assert "answer: " in solved.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "utf-8:surrogateescape"])
def test_paths_and_signs_that_the_terminal_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding, "EDGE_REASON_HOME": f"{tmp_path}/h\udce9"}
    report = subprocess.run([*RUN, "doctor"], env=env, capture_output=True, text=True, timeout=120)
    assert report.returncode == 0, report.stderr
    shown = "h?" if encoding == "ascii" else "h\\udce9"  # click writes its own escapes where the encoding is ASCII
    assert f"{tmp_path}/{shown}/packs can be written" in report.stdout


def test_answers_that_the_terminal_cannot_show_are_escaped() -> None:
    code = "import edge_tts.cli as cli, edge_tts.__main__ as m; cli.run = lambda: print('5 \u2192 6'); m.main()"
    for encoding, shown in (
        ("ascii", b"5 \\u2192 6\n"),
        ("cp1252", b"5 \\u2192 6\n"),
        ("utf-8", b"5 \xe2\x86\x92 6\n"),
    ):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_a_check_that_breaks_is_a_finding() -> None:
    def _profile() -> list[doctor.Check]:
        raise RuntimeError("boom\nsecond line")

    assert doctor._guarded(_profile) == [doctor.Check("profile", "failed", "RuntimeError: boom")]
