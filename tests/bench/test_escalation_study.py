"""The curve of escalation: what it ends in, that unsure questions go first, what it costs, and its plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pools import pool, written

from edge_tts.bench import controller_plots, controller_replay
from edge_tts.bench.escalation_study import Side, escalate
from edge_tts.errors import InputError
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing

BY_VOTE = Calibration({"bias": -1.0, "vote": 1.5}, {"bias": 3.0})


def side(folder: Path, chances: tuple[float, ...], parameters: int, seed: int, count: int = 40) -> Side:
    draw = np.random.default_rng(seed)
    pools = [pool(i, draw.choice(chances), draw) for i in range(count)]
    problems = controller_replay.read(written(folder, pools))
    return Side(problems, Controller(8, BY_VOTE, Pacing(4, 4)), parameters)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("studies")
    return escalate(side(folder / "small", (0.1, 0.95), 500, 1), side(folder / "large", (0.6, 0.95), 1500, 2))


def test_the_curve_goes_from_the_small_model_to_all_handed_over(found: dict[str, Any]) -> None:
    shares = [point["share"] for point in found["curve"]]
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares == sorted(shares)
    nothing, everything = found["curve"][0], found["curve"][-1]
    assert nothing["tokens"]["large"] == 0
    assert nothing["flops"] == pytest.approx(1000 * nothing["tokens"]["small"], rel=1e-3)
    assert everything["tokens"]["large"] == found["larger_alone"]["tokens"]
    assert everything["flops"] == pytest.approx(nothing["flops"] + found["larger_alone"]["flops"], rel=1e-3)


def test_unsure_questions_first_is_better_than_at_random_and_reaches_the_larger_model(found: dict[str, Any]) -> None:
    usual = found["usual"]
    assert 0.2 < usual["share"] < 0.8
    assert usual["accuracy"]["value"] > usual["same_share_at_random"]
    equal = found["equals_the_larger"]
    assert equal["share"] < 0.9
    assert equal["accuracy"]["value"] >= found["larger_alone"]["accuracy"]["value"]


def test_an_answer_is_kept_where_the_larger_model_is_less_sure(tmp_path: Path) -> None:
    small = side(tmp_path / "small", (0.99,), 500, 1, count=5)
    large = side(tmp_path / "large", (0.01,), 1500, 2, count=5)
    everything = escalate(small, large)["curve"][-1]
    assert everything["share"] == 1
    assert everything["accuracy"]["value"] > 0.9


def test_confidences_of_which_one_was_not_fitted_are_not_compared(tmp_path: Path) -> None:
    small = side(tmp_path / "small", (0.99,), 500, 1, count=5)
    small = Side(small.problems, Controller(8), 500)
    everything = escalate(small, side(tmp_path / "large", (0.01,), 1500, 2, count=5))["curve"][-1]
    assert everything["gain_over_the_larger"]["value"] == 0


def test_studies_without_common_problems_are_refused(tmp_path: Path) -> None:
    small = side(tmp_path / "small", (0.9,), 500, 1, count=2)
    with pytest.raises(InputError, match="no problem in common"):
        escalate(small, Side([], small.controller, 1))


def test_its_plots_and_those_of_the_controller(found: dict[str, Any], tmp_path: Path) -> None:
    panels = controller_plots.draw({"small": "a", "large": "b", **found}, tmp_path / "plots")
    assert [panel.png.name for panel in panels] == ["escalation-share.png", "escalation-compute.png"]
    assert all(panel.svg.stat().st_size > 1000 and panel.png.stat().st_size > 1000 for panel in panels)
    with pytest.raises(InputError, match="nothing to draw"):
        controller_plots.draw({"fits": {}}, tmp_path)
    with pytest.raises(InputError, match="no record"):
        controller_plots.draw({"controller": {}, "pack": "a"}, tmp_path)
