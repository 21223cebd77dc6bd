"""Statistics of the comparison, and a comparison run for real on a few problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_tts.bench import compare
from edge_tts.intervals import wilson
from edge_tts.pack import Pack

SAMPLE = Path(__file__).parent / "data" / "svamp_sample.jsonl"


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-3)


def test_a_comparison_is_recorded_and_resumed(pack: Pack, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = [
        "--data",
        str(SAMPLE),
        "--first",
        "3",
        "--strategies",
        "greedy,majority",
        "--budget",
        "2",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(compare.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [r["strategy"] for r in record["rows"]] == ["greedy", "majority"]
    assert all(r["problems"] == 3 and r["mean_policy_tokens"] > 0 and r["mean_seconds"] > 0 for r in record["rows"])
    assert len(record["problems"]["svamp_sample"]) == 3
    kept = (tmp_path / "record.d" / "svamp_sample-majority.jsonl").read_bytes()
    assert CliRunner().invoke(compare.main, arguments, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "record.d" / "svamp_sample-majority.jsonl").read_bytes() == kept
