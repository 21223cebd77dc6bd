"""Fitting the weight of doubted texts: low where false equations go with wrong answers, 1 where they say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_tts.bench import controller_replay, doubts
from edge_tts.bench.pool import Part, Pool, Sample

FALSE, TRUE = "So 12 * 8 = 98.", "So 12 * 8 = 96."


def pool(number: int, draw: np.random.Generator, slips: bool) -> Pool:
    """Samples a half of which state a false equation; with ``slips`` these are wrong, all in one way."""
    samples = []
    for i in range(12):
        is_false = i % 2 == 0
        right = not is_false if slips else bool(draw.random() < 0.6)
        # Right answers scatter a little more than the one wrong answer that false equations lead to.
        answer = "96" if right else "98"
        if right and draw.random() < 0.3:
            right, answer = False, str(100 + i)
        step = FALSE if is_false else TRUE
        samples.append(Sample((7,) * 40, (Part(step, 40, -4.0, 0),), "end", (step,), answer, right))
    return Pool(f"p{number}", 0, (1,) * 90, tuple(samples), None)


def study(folder: Path, slips: bool, format: str = "text") -> Path:
    folder.mkdir()
    draw = np.random.default_rng(3)
    lines = [json.dumps(pool(number, draw, slips).to_dict()) for number in range(30)]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    config = {"format": 1, "reasoning_format": format, "pack": "m", "data": {"name": "made up"}, "seeds": 1}
    (folder / "study.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("slips", "low", "high"), [(True, 0.0, 0.6), (False, 0.0, 1.0)])
def test_the_weight_is_what_solves_most(tmp_path: Path, slips: bool, low: float, high: float) -> None:
    record = doubts.fit(controller_replay.read(study(tmp_path / "study", slips)))
    assert low <= record["weight"] <= high
    solved = {float(weight): share["value"] for weight, share in record["solved"].items()}
    assert solved[record["weight"]] == max(solved.values())
    gain, right = record["gain_held_out"], record["right"]
    assert right["doubted"]["samples"] == right["not_doubted"]["samples"] == 180
    if slips:
        assert gain["low"] > 0.1
        assert right["doubted"]["share"]["value"] == 0
    else:
        assert gain["low"] < 0.05


def test_the_command_writes_a_record_and_refuses_programs(tmp_path: Path) -> None:
    out = tmp_path / "doubts.json"
    texts = study(tmp_path / "texts", slips=True)
    done = CliRunner().invoke(doubts.main, [str(texts), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(out.read_text())["problems"] == 30
    programs = study(tmp_path / "programs", slips=True, format="program")
    with pytest.raises(doubts.InputError, match="in the format program"):
        CliRunner().invoke(doubts.main, [str(programs), "--out", str(out)], catch_exceptions=False)
