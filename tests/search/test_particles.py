"""Particle filtering: who survives a round, and that a search ends with finished traces."""

from __future__ import annotations

import pytest
from searching import context, drain, finished, in_turn, last_step

from edge_tts.core import Trace
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.particles import MAX_ROUNDS, Particles, resample
from edge_tts.search.wave import Candidate


def particle(id: int) -> Candidate:
    return Candidate(id, id, Trace((id,), (str(id),)), 0, 10)


def test_particles_survive_in_proportion_to_their_scores() -> None:
    particles = [particle(0), particle(1), particle(2)]
    for round in range(20):
        drawn = [p.id for p in resample(particles, [0.8, 0.2, 0.0], 10, round)]
        assert drawn.count(0) == pytest.approx(8, abs=1)
        assert drawn.count(1) == pytest.approx(2, abs=1)
        assert len(drawn) == 10


def test_the_draw_is_the_same_each_time_and_differs_between_rounds() -> None:
    particles = [particle(i) for i in range(5)]
    draws = [
        [p.id for p in resample(particles, [0.5, 0.4, 0.3, 0.2, 0.1], 4, round)] for round in (0, 0, 1, 2, 3, 4, 5)
    ]
    assert draws[0] == draws[1]
    assert any(draw != draws[0] for draw in draws[2:])


def test_it_goes_on_from_what_scored_well_and_sums_scores_over_answers() -> None:
    policy = ScriptedPolicy(in_turn("good\n-", "bad\n-", "#### 7", "#### 7"))
    verifier = ScriptedVerifier(last_step({"good": 0.98, "bad": 0.0, "#### 7": 0.9}))
    _, outcome = drain(context(policy, verifier).run(Particles(2)))
    assert outcome.best is not None
    assert outcome.best.steps == ("good", "#### 7")
    assert outcome.stop_reason == "complete"


def test_a_search_that_never_finishes_ends() -> None:
    policy = ScriptedPolicy(lambda text, seed: "on\n" * (MAX_ROUNDS + 9))
    verifier = ScriptedVerifier(last_step({}))
    _, outcome = drain(context(policy, verifier).run(Particles(2)))
    assert outcome.best is None


def test_a_trace_that_was_drawn_several_times_counts_as_often() -> None:
    """Three particles grow from one step; the two others' answer scores more than one of them, less than three."""
    policy = ScriptedPolicy(in_turn("good\n-", "bad\n-", "bad\n-", *["#### 7"] * 3))
    verifier = ScriptedVerifier(last_step({"good": 0.98, "bad": 0.0, "#### 7": 0.5}))
    _, outcome = drain(context(policy, verifier).run(Particles(3), [finished("8", 0.9)]))
    assert outcome.best is not None
    assert outcome.best.answer == "7"
    assert outcome.support == pytest.approx(1.5 / 2.4)
    assert outcome.confidence == pytest.approx(3 / 5)  # of four samples three agree
    assert sorted(trace.answer or "" for trace in outcome.voted) == ["7", "7", "7", "8"]


def test_copies_count_where_only_finished_traces_were_drawn() -> None:
    policy = ScriptedPolicy(in_turn("#### 7", "#### 8", "bad\n-"))
    verifier = ScriptedVerifier(last_step({"#### 7": 0.9, "#### 8": 0.4, "bad": 0.0}))
    _, outcome = drain(context(policy, verifier).run(Particles(3)))
    assert sorted(trace.answer or "" for trace in outcome.voted) == ["7", "7", "8"]
    assert outcome.support == pytest.approx(1.8 / 2.2)
