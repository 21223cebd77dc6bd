"""What is measured of an exported reward model, and the gate it has to pass."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from prm_checkpoints import OTHER, QUESTION, TRACE, TRACES

from edge_tts.errors import BackendError, InputError, PackError, ResourceError
from edge_tts.export import prm_export
from edge_tts.export.prm_cost import measure
from edge_tts.export.prm_export import export_prm
from edge_tts.export.prm_measurements import (
    Parity,
    Quality,
    Thresholds,
    failures,
    parity,
    quality,
)
from edge_tts.export.prm_metrics import auc, selection, step_metrics
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.runtimes.onnx_verifier import OnnxVerifier

ROWS = [
    Row(str(question), question, steps, tuple(float(i < 2) for i in range(len(steps))), steps[-1], n % 2 == 0)
    for question in (QUESTION, OTHER)
    for n, steps in enumerate(TRACES)
    if steps
]


def test_what_is_measured_of_a_good_export(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    steps: list[float] = []
    another = tmp_path / ".building-another"  # of a command that writes into the same folder now
    another.mkdir()
    measured = export_prm(
        checkpoints["value"],
        tmp_path,
        "fp16",
        rows=ROWS,
        shapes=((2, 16), (1, 8), (1, 10_000)),
        progress=lambda fraction, label: steps.append(fraction),
    )
    assert json.loads((tmp_path / "prm-account.json").read_text()) == json.loads(json.dumps(measured))
    another.rmdir()
    assert {p.name for p in tmp_path.iterdir()} - {".lock"} == {"prm-account.json", "prm.onnx", "tokenizer.json"}
    assert measured["good"] is True
    assert measured["forced"] is False
    assert measured["bytes"] == (tmp_path / "prm.onnx").stat().st_size
    compared = measured["comparison"]
    assert 0 < compared["parity"]["mean_error"] <= compared["parity"]["max_error"] < 0.02
    assert compared["parity"]["spearman"] > 0.98
    assert compared["parity"]["steps"] == 16
    for side in ("pytorch", "exported"):
        assert 0 <= compared[side]["step_error_f1"] <= 1
        assert compared[side]["selection"]["questions"] == 2
    assert [(cost["batch"], cost["length"]) for cost in measured["costs"]] == [(1, 8), (2, 16)]
    assert all(cost["seconds"] > 0 and cost["peak_memory_mb"] > 20 for cost in measured["costs"])
    assert steps == sorted(steps)
    scored = OnnxVerifier(tmp_path / "prm.onnx", tmp_path / "tokenizer.json", "cpu", 1).score(QUESTION, [TRACE])
    assert len(scored[0].scores) == len(TRACE)


def test_the_gate_refuses_unless_forced(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    strict = Thresholds(max_mean_error=1e-6)
    with pytest.raises(PackError, match=r"int8 model is not good enough \(mean error .*\) and was not written"):
        export_prm(checkpoints["value"], tmp_path, rows=ROWS, thresholds=strict, shapes=())
    assert {p.name for p in tmp_path.iterdir()} - {".lock"} == {"prm-refused.json"}
    refused = json.loads((tmp_path / "prm-refused.json").read_text())
    assert (refused["good"], refused["forced"]) == (False, False)
    forced = export_prm(checkpoints["value"], tmp_path, rows=ROWS, thresholds=strict, force=True, shapes=())
    assert (forced["good"], forced["forced"]) == (False, True)
    assert forced["thresholds"]["max_mean_error"] == 1e-6
    assert "mean error" in forced["comparison"]["failures"][0]
    assert {p.name for p in tmp_path.iterdir()} - {".lock"} == {"prm-account.json", "prm.onnx", "tokenizer.json"}


def test_what_was_not_measured_is_not_good(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    measured = export_prm(checkpoints["value"], tmp_path, "int4", shapes=())
    assert (measured["good"], measured["forced"], measured["comparison"]) == (False, False, None)
    assert (tmp_path / "prm.onnx").exists()


def test_a_failed_export_leaves_the_folder_as_it_was(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_prm(checkpoints["value"], tmp_path, shapes=())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prm_export, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_prm(checkpoints["value"], tmp_path, "fp16", shapes=((1, 8),))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_model_that_cannot_run_is_a_backend_error(tmp_path: Path) -> None:
    (tmp_path / "prm.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match=r"measuring the speed of .*prm\.onnx failed"):
        measure(tmp_path / "prm.onnx", [(1, 8)])


def ranked(wanted: list[float], got: list[float]) -> float:
    """Rank correlation of the scores of as many steps."""
    return parity([Row("a", "q", tuple(map(str, range(len(wanted)))))], [wanted], [got]).spearman


def test_spearman_with_ties() -> None:
    values = [0.1, 0.2, 0.2, 0.9]
    assert ranked(values, [value**3 for value in values]) == pytest.approx(1)
    assert ranked(values, [-value for value in values]) == pytest.approx(-1)
    assert ranked([1.0, 2, 3, 4], [1.0, 3, 2, 4]) == pytest.approx(0.8)
    assert ranked(values, [0.5] * 4) == 0
    assert ranked([0.5] * 4, [0.5] * 4) == 1


def test_shared_steps_count_once() -> None:
    rows = [Row("a", "q", ("x", "y")), Row("a", "q", ("x", "z"))]
    wanted, got = [[0.1, 0.9], [0.1, 0.4]], [[0.1, 0.8], [0.1, 0.4]]
    assert parity(rows, wanted, got).steps == 3
    assert parity(rows, wanted, got).mean_error == pytest.approx(0.1 / 3)
    assert parity(rows, wanted, got).max_error == pytest.approx(0.1)
    with pytest.raises(InputError, match="none of the traces fits"):
        parity(rows, [[], []], [[], []])


def test_quality_of_scores() -> None:
    samples = [
        Row("a", "q", ("x", "y"), (1.0, 0.0), "1", True),
        Row("a", "q", ("z", "w"), (0.2, 0.2), "2", False),
        Row("b", "r", ("x",)),
    ]
    found = quality(samples, [[0.9, 0.2], [0.7, 0.4], [0.1]])
    assert found.step_error_f1 == pytest.approx(2 * 2 / (2 + 3))  # two found, both right, of three
    assert found.selection is not None
    assert found.selection["best_of_n"] == 0
    assert quality(samples[2:], [[0.1]]) == Quality(None, None)
    assert quality([Row("a", "q", ("x",), (1.0,))], [[0.1]]).step_error_f1 is None


def test_each_threshold_fails_by_itself() -> None:
    def accuracy(share: float) -> dict[str, float]:
        return {"best_of_n": share}

    good = (Parity(9, 0.01, 0.01, 0.99), Quality(0.8, accuracy(0.6)), Quality(0.8, accuracy(0.6)), Thresholds())
    assert failures(*good) == ()
    close, before, after, limits = good
    assert "Spearman 0.900" in failures(Parity(9, 0.01, 0.01, 0.9), before, after, limits)[0]
    assert "Spearman nan" in failures(Parity(9, 0.01, 0.01, float("nan")), before, after, limits)[0]
    assert "mean error 0.060" in failures(Parity(9, 0.1, 0.06, 0.99), before, after, limits)[0]
    assert "F1 falls by 0.100" in failures(close, before, Quality(0.7, accuracy(0.6)), limits)[0]
    assert "accuracy falls by 0.200" in failures(close, before, Quality(0.8, accuracy(0.4)), limits)[0]
    assert failures(close, before, Quality(0.7, accuracy(0.4)), Thresholds(0.9, 0.1, 0.2, 0.3)) == ()
    assert failures(close, Quality(None, None), Quality(None, None), limits) == ()


def test_traces_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    row = {"question": "q", "steps": ["1+1=2", "#### 2"], "labels": [1, 0.5], "answer": "2", "correct": True}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"id": "7", "question": "q", "steps": ["x"]}))
    assert read_rows(path, labelled=False) == [
        Row("q", "q", ("1+1=2", "#### 2"), (1.0, 0.5), "2", True),
        Row("7", "q", ("x",)),
    ]
    for bad, message in (
        ("{", "line 1: not a trace"),
        ("[]", "line 1: not a trace"),
        ('{"question": "q"}', "steps"),
        ('{"question": "q", "steps": []}', "`array` of length >= 1"),
        ('{"question": "q", "steps": "abc"}', "Expected `array`, got `str`"),
        ('{"question": "q", "steps": ["x"], "labels": [1, 2]}', "Expected `float` <= 1"),
        ('{"question": "q", "steps": ["x"], "labels": [1, 1]}', "1 steps and 2 labels"),
        ("", "has no traces"),
    ):
        path.write_text(bad)
        with pytest.raises(InputError, match=message):
            read_rows(path, labelled=False)
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl"):
        read_rows(tmp_path / "none.jsonl", labelled=False)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"id": "q", "question": "a", "steps": ["1+1=2"]}',
        '{"id": "q", "question": "a", "steps": ["1+1=2"], "labels": [1.5]}',
        '{"id": "q", "question": "a", "steps": ["1+1=2", "#### 2"], "labels": [1]}',
    ],
)
def test_rows_without_usable_labels_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1: not a labelled trace"):
        read_rows(path)


def test_metrics() -> None:
    assert auc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(3.5 / 4)
    assert step_metrics([(0.5, 1.0), (0.5, 0.0)])["bce"] == pytest.approx(0.6931, abs=1e-3)
    traces = [("a", "1", True, 0.9), ("a", "2", False, 0.5), ("a", "2", False, 0.5), ("b", "3", False, 0.2)]
    assert selection(traces) == {
        "questions": 2.0,
        "pass_at_1": pytest.approx(1 / 6),
        "best_of_n": 0.5,
        "weighted": 0.0,
        "majority": 0.0,
        "pass_at_n": 0.5,
    }


def test_a_full_disk_is_told_before_work_starts(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="0 MiB free"):
        export_prm(checkpoints["value"], tmp_path)
