"""Exported verifiers side by side on labelled traces."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_tts.bench import compare_verifiers
from edge_tts.errors import InputError
from edge_tts.export.prm_metrics import best_threshold, f1, picks
from edge_tts.packs.pack import Pack
from edge_tts.runtimes.scripted import ScriptedVerifier

QUESTIONS = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four traces for each of 40 questions: on half of them a lone right answer is outvoted, on the others it wins."""
    path = tmp_path_factory.mktemp("data") / "held_out.jsonl"
    lines = []
    for i in range(QUESTIONS):
        for n, answer in enumerate(
            ("right", "wrong", "wrong", "other") if i % 2 else ("other", "right", "right", "wrong")
        ):
            steps, good = [f"{i}+{n}={i + n}", f"#### {answer}"], answer == "right"
            row = {"id": f"q{i}", "question": f"What is {i}?", "steps": steps, "labels": [0.6, float(good)]}
            lines.append(json.dumps({**row, "answer": answer, "correct": good}))
    path.write_text("\n".join(lines))
    return path


def oracle(question: str, steps: Sequence[str]) -> list[float]:
    return [0.6, 0.9 if "right" in steps[-1] else 0.1]


def contrary(question: str, steps: Sequence[str]) -> list[float]:
    return [0.6, 0.2 if "right" in steps[-1] else 0.8]


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Folders that open as verifiers that score as given functions say."""

    def make(**scripts: Callable[[str, Sequence[str]], list[float]]) -> list[Path]:
        def opened(path: Path, *_: object) -> ScriptedVerifier:
            return ScriptedVerifier(scripts[path.parent.name], parameters=100)

        monkeypatch.setattr(compare_verifiers, "OnnxVerifier", opened)
        for name in scripts:
            (tmp_path / name).mkdir()
            (tmp_path / name / "prm.onnx").write_bytes(b"1234")
        return [tmp_path / name for name in scripts]

    return make


def test_a_perfect_verifier_beats_the_majority_and_a_contrary_one_loses(
    data: Path, scripted: Callable[..., list[Path]]
) -> None:
    folders = scripted(oracle=oracle, contrary=contrary)
    told = compare_verifiers.compare(data, folders, counts=(2, 4))
    assert told["questions"] == {"calibration": 8, "test": 32}
    assert told["traces"] == 128
    common = told["by_count"]["4"]
    assert common["pass_at_1"]["value"] == pytest.approx((0.25 + 0.5) / 2, abs=1e-4)
    assert common["majority"]["value"] == pytest.approx(0.5, abs=1e-4)
    assert common["pass_at_n"]["value"] == 1
    best, worst = (told["verifiers"][str(folder)] for folder in folders)
    assert best["step"]["auc"] == best["final"]["auc"] == best["final"]["auc_within_a_question"] == 1
    assert best["step"]["f1_right"]["value"] == best["step"]["f1_errors"]["value"] == 1
    assert 0.1 <= best["step"]["f1_errors"]["threshold"] < best["step"]["f1_right"]["threshold"] <= 0.6
    four = best["selection"]["4"]
    assert four["best_of_n"]["value"] == four["weighted"]["value"] == 1
    assert four["best_of_n_less_majority"]["value"] == pytest.approx(0.5, abs=1e-4)
    assert 0.3 < four["best_of_n_less_majority"]["low"] < 0.5 < four["best_of_n_less_majority"]["high"] < 0.7
    assert "best_of_n_less_first" not in four
    assert worst["final"]["auc"] == worst["selection"]["4"]["best_of_n"]["value"] == 0
    assert worst["selection"]["4"]["best_of_n_less_first"] == {"value": -1, "low": -1, "high": -1}
    assert best["selection"]["2"]["best_of_n"]["value"] == pytest.approx((0.5 + 1) / 2, abs=1e-4)  # blocks of two


def test_costs_are_counted(data: Path, scripted: Callable[..., list[Path]]) -> None:
    [folder] = scripted(oracle=oracle)
    told = compare_verifiers.compare(data, [folder], counts=(4,))["verifiers"][str(folder)]
    assert (told["bytes"], told["parameters"], told["flops_per_token"]) == (4, 100, 200)
    assert told["flops_per_trace"] == 200 * told["tokens_per_trace"] > 0
    assert told["tokens_per_second"] == pytest.approx(told["traces_per_second"] * told["tokens_per_trace"])


def test_the_built_in_verifier_goes_through_the_command(
    data: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "comparison.json"
    arguments = ["compare_verifiers", str(pack.folder), "--validation", str(data), "--counts", "4", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    compare_verifiers.main()
    told = json.loads(out.read_text())["verifiers"][str(pack.folder)]
    assert pack.verifier is not None
    assert told["parameters"] == pack.verifier.parameters
    assert told["tokens_per_second"] > 10
    assert 0 <= told["selection"]["4"]["weighted"]["value"] <= 1


def test_traces_that_cannot_be_compared_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 of 40 questions have at least 8 traces; 10 are needed"):
        compare_verifiers.compare(data, [], counts=(4, 8))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "q7", "question": "a", "steps": ["1+1=2"], "labels": [1.0]}')
    with pytest.raises(InputError, match="q7 has no answer"):
        compare_verifiers.compare(path, [], counts=(4,))


def test_thresholds_and_picks() -> None:
    scores, wanted = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    assert f1(scores >= 0.4, wanted) == pytest.approx(0.8)
    assert best_threshold(scores, wanted) == 0.4
    assert f1(scores >= 2, wanted) == 0
    picked = picks([("1", True, 0.9), ("2", False, 0.5), ("2", False, 0.6)])
    assert picked == {
        "pass_at_1": pytest.approx(1 / 3),
        **{"best_of_n": 1.0, "weighted": 0.0, "majority": 0.0, "pass_at_n": 1.0},
    }
