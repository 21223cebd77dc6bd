"""Scores of a study's programs: by the whole fit, or by the fit that a problem had no part in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pools import pool

from edge_tts.bench import program_scores
from edge_tts.bench.controller_replay import Problem, are_scored, problem_of
from edge_tts.errors import InputError
from edge_tts.export.train.heads import FOLDS, fold_of
from edge_tts.packs.bare_model import PROGRAM_VERIFIER
from edge_tts.packs.manifest import read_json


def weights(bias: float) -> dict[str, Any]:
    return {"complete": {"bias": bias}, "growing": {"bias": bias}}


FIT = {"format": 1, **weights(0.0), "evidence": {"folds": [weights(1.0 + fold) for fold in range(FOLDS)]}}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    draw = np.random.default_rng(0)
    return [problem_of(pool(number, 0.5, draw, size=3)) for number in range(8)]


def test_problems_are_scored_by_the_fit_they_had_no_part_in(problems: list[Problem]) -> None:
    questions = {problem.id: "How many?" for problem in problems}
    assert not are_scored(problems)
    for problem in program_scores.scored(problems, questions, FIT, held_out=True):
        expected = 1 / (1 + np.exp(-1.0 - fold_of(problem.id)))
        assert [candidate.trace.scores for candidate in problem.usual] == [pytest.approx((expected,))] * 3
    whole = program_scores.scored(problems, questions, FIT, held_out=False)
    assert {candidate.trace.scores for problem in whole for candidate in problem.usual} == {(0.5,)}
    assert are_scored(whole)
    assert not are_scored([*whole, replace(problems[0], id="another")])


def test_a_problem_without_its_text_is_named(problems: list[Problem]) -> None:
    with pytest.raises(InputError, match=r"--data lacks 7 problems of the study, such as p1"):
        program_scores.scored(problems, {"p0": "How many?"}, FIT, held_out=False)


def test_the_shipped_fit_has_its_folds(problems: list[Problem]) -> None:
    questions = {problem.id: "How many?" for problem in problems}
    assert are_scored(program_scores.scored(problems, questions, read_json(PROGRAM_VERIFIER), held_out=True))
