"""Samples of several policies side by side."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_tts.bench import compare_policies
from edge_tts.errors import InputError


def write(path: Path, answers: Mapping[str, str]) -> Path:
    """One trace for each letter of a problem's answers; "r" is right."""
    rows = [
        {"id": id, "question": id, "steps": ["s"], "labels": [0.5], "answer": letter, "correct": letter == "r"}
        for id, letters in answers.items()
        for letter in letters
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_differences_are_paired_over_the_problems_both_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "a", {f"q{i}": "rwww" if i % 2 else "rrrr" for i in range(20)} | {"alone": "wwww"})
    second = write(tmp_path / "b", {f"q{i}": "rwrw" if i % 2 else "rrrr" for i in range(20)})
    out = tmp_path / "c.json"
    monkeypatch.setattr("sys.argv", ["compare_policies", str(first), str(second), "--out", str(out)])
    compare_policies.main()
    told = json.loads(out.read_text())
    assert told["problems"] == sorted(f"q{i}" for i in range(20))
    one, two = told["files"].values()
    assert one["traces"] == two["traces"] == 80
    assert one["pass_at_1"]["value"] == 0.625
    assert one["majority"]["value"] == 0.5
    assert one["pass_at_n"]["value"] == 1
    assert two["pass_at_1_less_first"]["value"] == 0.125
    # Half of the problems gain 0.25, the others nothing: paired, the interval is narrow and above 0.
    assert 0.05 < two["pass_at_1_less_first"]["low"] < 0.125 < two["pass_at_1_less_first"]["high"] < 0.2
    assert two["pass_at_n_less_first"] == {"value": 0, "low": 0, "high": 0}


def test_files_without_a_problem_in_common_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "a", {"q1": "rw"}), write(tmp_path / "b", {"q2": "rw"})]
    with pytest.raises(InputError, match="same --split"):
        compare_policies.compare(files)
