"""The difficulty that a first wave shows, and what is run for it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from searching import Search, drain, finished, in_turn, last_step

from edge_tts.core import Budget, Trace
from edge_tts.events import Decided, DifficultyEstimated, Event, Outcome, StrategyChosen
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.difficulty import Auto, probe_score
from edge_tts.search.wave import Candidate

HOPEFUL = Calibration({"bias": -1.0, "vote": 2.0}, {"bias": 5.0})


def table(*cells: str) -> StrategyTable:
    """One budget of 8 and a cell for each bin, of four samples' agreement or mean score."""
    return StrategyTable(4, (0.8, 0.6, 0.4, 0.2), (8,), tuple((cell,) for cell in cells))


def run(
    answers: str,
    strategies: StrategyTable | None,
    verifier: ScriptedVerifier | None = None,
    deadline: float | None = None,
    **settings: Any,
) -> tuple[list[Event], Outcome, Auto]:
    policy = ScriptedPolicy(in_turn(*(f"#### {answer}" for answer in answers)))
    controller = Controller(8, scores=verifier is not None, **settings)
    auto = Auto(strategies, controller)
    limits = {"budget": Budget(generations=8), "deadline": deadline}
    search = Search(policy, verifier, calibration=controller.calibration, **limits)
    events, outcome = drain(search.run(auto))
    return events, outcome, auto


def candidates(*traces: Trace) -> list[Candidate]:
    return [Candidate(number, number, trace, 1, 0) for number, trace in enumerate(traces)]


def test_without_a_verifier_easy_is_what_samples_agree_on_those_without_an_answer_included() -> None:
    nothing = Trace((1,), ("hm",))
    assert probe_score(candidates(*[finished("1")] * 4), "last", scored=False) == 1
    assert probe_score(candidates(finished("1"), nothing, nothing, nothing), "last", scored=False) == 0.25
    assert probe_score(candidates(finished("1"), finished("1"), finished("2"), nothing), "last", scored=False) == 0.5
    assert probe_score([], "last", scored=False) == 0


def test_with_a_verifier_it_is_the_mean_score_and_unknown_where_there_was_no_time_to_score() -> None:
    scored = [finished("1", 0.9), finished("2", 0.3), Trace((1,), ("hm",)), Trace((1,), ("hm",))]
    assert probe_score(candidates(*scored), "last", scored=True) == pytest.approx(0.3)
    assert probe_score(candidates(*scored, finished("3")), "last", scored=True) is None


def test_the_table_of_a_model_without_a_verifier_is_followed() -> None:
    events, _, auto = run("1234" + "5", table("majority", "majority", "majority", "greedy", "majority"))
    assert [event.bin for event in events if isinstance(event, DifficultyEstimated)] == [3]  # 1 of 4 agree
    assert [event.strategy for event in events if isinstance(event, StrategyChosen)] == ["greedy"]
    assert auto.difficulty is not None
    assert auto.difficulty.score == 0.25


def test_no_time_to_score_is_not_taken_for_a_hard_question() -> None:
    class Slow(ScriptedVerifier):
        def seconds(self, tokens: int) -> float:
            return 1000

    hard_goes_to_beam = table("weighted", "weighted", "weighted", "weighted", "beam")
    events, outcome, auto = run("11111111", hard_goes_to_beam, Slow(last_step({})), time.monotonic() + 100)
    assert auto.reason == "there was no time to estimate the difficulty"
    assert outcome.best is not None
    assert not [event for event in events if isinstance(event, DifficultyEstimated) and event.bin == 4]
    assert [event.strategy for event in events if isinstance(event, StrategyChosen)] == ["adaptive:n=8"]


def test_a_vote_that_the_table_names_ends_where_the_controller_says() -> None:
    votes = table(*["weighted"] * 5)
    verifier = ScriptedVerifier(last_step({}, default=0.9))
    pacing = Pacing(first=4, wave=2, target=0.9)
    events, outcome, auto = run("11111111", votes, verifier, calibration=HOPEFUL, pacing=pacing)
    assert str(auto.strategy) == "weighted:n=8"
    assert [(event.action, event.samples) for event in events if isinstance(event, Decided)] == [("stop", 4)]
    assert outcome.stop_reason == "sure"
    assert len(outcome.traces) == 4
    split, _, _ = run("12341234", votes, verifier, calibration=HOPEFUL, pacing=pacing)
    assert [event.samples for event in split if isinstance(event, Decided)] == [4, 6, 8]


def test_without_a_fit_a_weighted_vote_of_the_table_weighs_scores_and_a_majority_does_not() -> None:
    scores = last_step({"#### 2": 0.9, "#### 1": 0.1})
    _, outcome, _ = run("11122112", table(*["weighted"] * 5), ScriptedVerifier(scores))
    assert outcome.best is not None
    assert outcome.best.answer == "2"
    _, outcome, _ = run("11122112", table(*["majority"] * 5), ScriptedVerifier(scores))
    assert outcome.best is not None
    assert outcome.best.answer == "1"
