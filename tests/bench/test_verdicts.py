"""What a report answers first, from studies whose figures are made up."""

from __future__ import annotations

import numpy as np

from edge_tts.bench.loading import COSTS, Cell, Loaded, Solves
from edge_tts.bench.verdicts import ACCURATE, LARGER, SAVES, answers

PROBLEMS = 200


def study(name: str, policy: str, parameters: float, cells: dict[Cell, tuple[float, float]]) -> Loaded:
    """The first problems are the right ones; ``cells`` gives the share of them and the FLOPs of each answer."""
    solves = {}
    for cell, (right, flops) in cells.items():
        correct = (np.arange(PROBLEMS) < right * PROBLEMS).astype(float)
        solves[cell] = Solves(correct, {cost: np.full(PROBLEMS, flops) for cost in COSTS})
    config = {"pack": policy, "policy_parameters": parameters}
    ids = tuple(map(str, range(PROBLEMS)))
    return Loaded(name, config, ids, 1, 0, solves, None, None, None, None)


SMALL: dict[Cell, tuple[float, float]] = {
    ("greedy", 1): (0.30, 1e11),
    ("majority", 4): (0.40, 2e11),
    ("majority", 16): (0.50, 8e11),
    ("adaptive", 16): (0.50, 2e11),
}


def said(*studies: Loaded) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    return {(a.data, a.question): (a.verdict, a.others) for a in answers(studies)}


def test_one_study_has_two_answers() -> None:
    found = said(study("gsm8k", "tiny", 1e8, SMALL))
    assert set(found) == {("gsm8k", ACCURATE), ("gsm8k", SAVES)}
    assert found["gsm8k", ACCURATE] == (
        "tiny gets 50.0% (43.5 to 57.0) for 200 GFLOP with adaptive at 16, and 30.0% (23.5 to 36.5) for 100 GFLOP with "
        "one greedy answer.",
        (),
    )
    assert found["gsm8k", SAVES][0] == (
        "tiny with adaptive at 16 saves: majority at 16 takes 4.00\u00d7 its FLOPs (4.00 to 4.00) and is right on "
        "the same problems."
    )


def test_auto_speaks_before_adaptive_consistency() -> None:
    cells = SMALL | {("auto", 16): (0.50, 1e11)}
    verdict, others = said(study("gsm8k", "tiny", 1e8, cells))["gsm8k", SAVES]
    assert verdict.startswith("tiny with auto at 16 saves: majority at 16 takes 8.00\u00d7 its FLOPs")
    assert others == ()


def test_what_costs_more_and_is_less_accurate_is_said_so() -> None:
    cells = SMALL | {("adaptive", 16): (0.40, 9e11)}
    verdict, _ = said(study("gsm8k", "tiny", 1e8, cells))["gsm8k", SAVES]
    assert "costs more: majority at 16 takes 0.89\u00d7 its FLOPs" in verdict
    assert "is 10.0 points more accurate (+6.0 to +14.5)" in verdict
    assert verdict.endswith("the cheapest fixed vote that is no worse, majority at 4, takes 0.22\u00d7 its FLOPs.")


def test_the_larger_model_wins_loses_or_is_not_told_apart() -> None:
    small = study("gsm8k", "tiny", 1e8, SMALL)

    def against(right: float) -> str:
        return said(small, study("gsm8k", "big", 1e9, {("greedy", 1): (right, 5e11)}))["gsm8k", LARGER][0]

    assert against(0.7).startswith("The larger model wins: no setting of tiny reaches one greedy answer of big: 50.0%")
    assert "(\u221220.0 points, \u221225.5 to \u221214.5; 200 problems)" in against(0.7)
    assert against(0.2).startswith("tiny passes one greedy answer of big: 50.0% with adaptive at 16 for 200 GFLOP")
    assert "are not told apart" in against(0.505)


def test_other_problems_are_not_mixed_in() -> None:
    found = said(
        study("svamp", "tiny", 1e8, SMALL), study("gsm8k", "tiny", 1e8, SMALL), study("gsm8k", "big", 1e9, SMALL)
    )
    assert next(iter(found))[0] == "gsm8k"
    assert ("svamp", LARGER) not in found
    assert found["gsm8k", ACCURATE][0].startswith("big")
    assert found["gsm8k", ACCURATE][1][0].startswith("tiny")
