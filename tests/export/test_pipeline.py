"""The whole training pipeline, from a base model and problems to a pack, as far as what `auto` is fitted on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_tts.errors import InputError
from edge_tts.export.train import pipeline
from edge_tts.packs.base_model import SMOLLM2_135M, locate
from edge_tts.packs.manifest import ADAPTER
from edge_tts.packs.pack import BUILT_IN, DEFAULT, find_pack, pack_problems
from edge_tts.solver import Solver


def problems(path: Path, count: int) -> Path:
    """Two-step problems with calculator annotations; every fifteenth is held out."""
    rows = []
    for i in range(count):
        boxes, each, given = 2 + i % 7, 3 + i % 11, 1 + i % 5
        left = boxes * each - given
        question = f"Tom has {boxes} boxes of {each} pens and loses {given}. How many are left?"
        solution = f"<<{boxes}*{each}={boxes * each}>> <<{boxes * each}-{given}={left}>>"
        rows.append({"id": f"t-{i}", "question": question, "solution": solution, "answer": str(left)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(folder: Path, data: Path, base: Path) -> pipeline.Settings:
    return pipeline.Settings(
        data, base, folder, minutes=0.1, problems=4, samples=4, rounds=1, validation=3, rank=8, vocabulary=None,
        torch=False,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_a_pack_comes_out_and_what_is_done_is_not_done_again(home: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "run", problems(tmp_path / "problems.jsonl", 2400)
    asked = settings(out, data, locate(SMOLLM2_135M))
    pipeline.run(asked, "sft-convert")
    # What seconds of training teach does not finish a trace: from here on with an adapter that does.
    shutil.copyfile(BUILT_IN / DEFAULT / ADAPTER, out / "sft" / "adapter.gguf")
    pipeline.run(asked, "quantised-validation")
    assert {path.name for path in (out / "done").iterdir()} >= {"sft", "extract", "sft-convert", "quantised"}
    assert not (out / "done" / "round-1").exists()
    before = (out / "quantised" / "adapter.gguf").stat().st_mtime_ns
    pipeline.run(asked, "prm")
    # Scores after so little training are close together, and int8 may rank them otherwise: not for the gate.
    export = [sys.executable, "-m", "edge_tts", "export", "prm", str(out / "prm"), "--out", str(out / "verifier")]
    subprocess.run([*export, "--force"], check=True)
    (out / "done" / "prm-export").touch()
    pipeline.run(asked, "pack")
    assert (out / "quantised" / "adapter.gguf").stat().st_mtime_ns == before
    (row,) = map(json.loads, (out / "rounds.jsonl").read_text().splitlines())
    assert row["problems"] == 3
    assert 0 <= row["validation"] <= 1
    pack = find_pack(str(out / "pack"))
    with Solver(pack) as solver:
        result = solver.solve("Tom has 3 boxes of 4 pens and loses 1. How many are left?", "weighted:n=4")
        assert pack_problems(solver.pack) == []
    assert result.finished
    assert result.usage.verifier_tokens > 0


def test_a_stage_that_fails_says_where_to_read_on(tmp_path: Path) -> None:
    asked = settings(tmp_path / "run", problems(tmp_path / "problems.jsonl", 60), tmp_path / "none.gguf")
    with pytest.raises(InputError, match=r"stage sft ended with code 3: error: .*log/sft.txt"):
        pipeline.run(asked)
    assert not list((tmp_path / "run" / "done").iterdir())


def test_an_unknown_stage_is_refused_before_anything_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_tts.export.train.pipeline", "--until", "sfx"]
    command += ["--data", str(tmp_path / "d"), "--base", str(tmp_path / "b"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith("error: --until sfx: there is no such stage")
    assert not (tmp_path / "run").exists()
