"""``edge-reason profile calibrate``: measures the user's own model, and the plans that follow use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_model import write_tiny_model

from edge_tts import cli
from edge_tts.errors import InputError
from edge_tts.planning.shapes import policy_shape
from edge_tts.profiles.loader import load


def test_own_model_is_measured_by_the_weights_it_multiplies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    model = write_tiny_model(tmp_path / "tiny.gguf")
    run = CliRunner().invoke(
        cli.group, ["profile", "calibrate", "phone", "--model", str(model), "--seconds", "0.1", "--json"]
    )
    assert run.exit_code == 0, run.output
    assert "decoding 32 wide, 512 tokens of context (10 of 10)" in run.stderr
    known = json.loads(run.stdout)["calibration"]
    assert known["pack"].startswith("tiny")
    assert known["speeds"]["parameters"] == policy_shape(model).parameters  # without embeddings, which are looked up
    assert {point["width"] for point in known["speeds"]["decode"]} == {1, 4, 8, 16, 32}
    assert all(point["tokens_per_s"] > 0 for point in known["speeds"]["decode"])

    # What was not measured keeps the source that the profile states.
    shown = CliRunner().invoke(cli.group, ["profile", "show", "phone"]).stdout
    assert shown.count("measured on") == 2
    assert load("phone").sources["speeds.verifier"] in shown

    plan = CliRunner().invoke(cli.group, ["plan", "--profile", "phone", "--model", str(model), "--json"])
    assert "measured here" in json.loads(plan.stdout)["speeds"]


def test_a_model_and_a_pack_are_one_too_many() -> None:
    run = CliRunner().invoke(cli.group, ["profile", "calibrate", "--model", "mine.gguf", "--pack", "smol-math"])
    assert isinstance(run.exception, InputError)
    assert "a pack brings its own model" in str(run.exception)
