from __future__ import annotations

import pytest
from searching import PROMPT, Proposed, announced, context, drain, finished, in_turn, last_step, scored, steps_taken

from edge_tts.core import Budget, Trace
from edge_tts.errors import InputError
from edge_tts.runtimes.scripted import GREEDY_SEED, ScriptedClock, ScriptedPolicy, ScriptedVerifier
from edge_tts.search.controller import Controller
from edge_tts.search.sampling import BestOfN, Greedy, Majority, Weighted
from edge_tts.search.wave import Wave


def answers(*values: str) -> ScriptedPolicy:
    return ScriptedPolicy(in_turn(*(f"#### {value}" for value in values)))


def test_greedy_is_one_trace_at_temperature_0() -> None:
    policy = ScriptedPolicy(lambda text, seed: "1+1=2\n#### 2" if seed == GREEDY_SEED else "#### 3")
    search = context(policy)
    events, outcome = drain(search.run(Greedy()))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.best.steps) == ("2", ("1+1=2", "#### 2"))
    assert (outcome.stop_reason, outcome.support, announced(events)) == ("complete", 1.0, ["2"])
    assert search.ledger.generations == 1


def test_greedy_falls_back_on_earlier_samples() -> None:
    _, outcome = drain(context(ScriptedPolicy(lambda text, seed: "hm")).run(Greedy(), [finished("4")]))
    assert outcome.best == finished("4")


def test_majority_counts_equivalent_answers_together() -> None:
    policy = answers("3", "4", "4.0", "3 eggs", "$4")
    events, outcome = drain(context(policy).run(Majority(5)))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.support) == ("4", 0.6)
    assert announced(events)[-1] == "4"
    assert len(outcome.traces) == 5
    assert len(policy.calls) == 1


def test_traces_without_answer_do_not_vote() -> None:
    policy = ScriptedPolicy(in_turn("hm", "hm", "#### 4"))
    _, outcome = drain(context(policy).run(Majority(3)))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.support) == ("4", 1.0)


def test_initial_samples_count_and_unfinished_ones_are_continued() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 7" if text.endswith("half\n") else "#### 8")
    search = context(policy)
    half = Trace(policy.tokenize(PROMPT + "half\n"), ("half",))
    _, outcome = drain(search.run(Majority(4), [finished("7"), half]))
    assert [trace.answer for trace in outcome.traces] == ["7", "7", "8", "8"]
    assert outcome.traces[1].steps == ("half", "#### 7")
    assert (search.ledger.generations, len(policy.calls[0])) == (2, 3)


def test_more_initial_samples_than_asked_for_all_vote() -> None:
    policy = answers()
    _, outcome = drain(context(policy).run(Majority(2), [finished("1"), finished("2"), finished("2")]))
    assert outcome.best is not None
    assert (outcome.best.answer, policy.calls) == ("2", [])


def test_generation_budget_cuts_n() -> None:
    search = context(answers("1", "2", "2"), budget=Budget(generations=3))
    _, outcome = drain(search.run(Majority(8)))
    assert (len(outcome.traces), outcome.stop_reason) == (3, "budget: generations")


def test_a_wave_of_samples_gives_the_traces_for_a_probe() -> None:
    strategy = Proposed([lambda last: Wave(Wave.samples(2))])
    events, _ = drain(context(answers("1", "2")).run(strategy))
    assert len(steps_taken(events)) == 2
    assert [candidate.trace.answer for candidate in strategy.grown[0]] == ["1", "2"]


def test_adaptive_stops_as_soon_as_the_vote_is_decided() -> None:
    policy = answers(*"4444")
    _, outcome = drain(context(policy).run(Controller(16)))
    assert (len(outcome.traces), outcome.stop_reason, outcome.support) == (4, "decided", 1.0)


def test_adaptive_goes_on_while_it_is_not() -> None:
    policy = answers(*"4454", *"4444", *"9999")
    _, outcome = drain(context(policy).run(Controller(16)))
    assert (len(outcome.traces), outcome.stop_reason) == (8, "decided")
    split = answers(*"4545454545")
    _, outcome = drain(context(split).run(Controller(10)))
    assert (len(outcome.traces), outcome.stop_reason) == (10, "complete")
    assert [len(call) for call in split.calls] == [4, 4, 2]


def test_adaptive_may_be_decided_by_the_probe() -> None:
    policy = answers()
    _, outcome = drain(context(policy).run(Controller(16), [finished("4")] * 4))
    assert (policy.calls, outcome.stop_reason) == ([], "decided")


def test_adaptive_ends_with_the_budget() -> None:
    search = context(answers(*"123456"), budget=Budget(generations=6))
    _, outcome = drain(search.run(Controller(16)))
    assert (len(outcome.traces), outcome.stop_reason) == (6, "budget: generations")


SCORES = {"#### 1": 0.9, "#### 2": 0.6, "#### 3": 0.1}


def test_best_of_n_and_weighted_differ() -> None:
    verifier = ScriptedVerifier(last_step(SCORES))
    events, best = drain(context(answers("1", "2", "2.0", "3"), verifier).run(BestOfN(4)))
    assert best.best is not None
    assert (best.best.answer, best.support) == ("1", pytest.approx(0.9 / 2.1))
    assert len(scored(events)) == 4
    _, heaviest = drain(context(answers("1", "2", "2", "3"), verifier).run(Weighted(4)))
    assert heaviest.best is not None
    assert (heaviest.best.answer, heaviest.support) == ("2", pytest.approx(1.2 / 2.2))


def test_aggregate_changes_the_choice() -> None:
    def policy() -> ScriptedPolicy:
        return ScriptedPolicy(in_turn("good\n#### 1", "bad\n#### 2"))

    verifier = ScriptedVerifier(last_step({"good": 0.8, "#### 1": 0.5, "bad": 0.1, "#### 2": 0.6}))
    picked = {}
    for how in ("last", "min", "product", "mean"):
        _, outcome = drain(context(policy(), verifier, aggregate=how).run(BestOfN(2, how)))
        assert outcome.best is not None
        picked[how] = outcome.best.answer
    assert picked == {"last": "2", "min": "1", "product": "1", "mean": "1"}


def test_only_answers_are_scored() -> None:
    verifier = ScriptedVerifier(last_step({}))
    policy = ScriptedPolicy(in_turn("hm", "#### 1"))
    drain(context(policy, verifier).run(BestOfN(2)))
    assert verifier.scored == [("#### 1",)]


@pytest.mark.parametrize("strategy", [BestOfN, Weighted])
def test_no_time_to_score_means_a_vote(strategy: type) -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(in_turn("#### 1", "#### 2", "#### 2"), clock=clock, batch_seconds=0.1)
    verifier = ScriptedVerifier(last_step(SCORES), clock=clock, token_seconds=1.0)
    _, outcome = drain(context(policy, verifier, clock=clock, deadline=10.0).run(strategy(3)))
    assert outcome.best.answer == "2"
    assert verifier.scored == []
    assert clock() <= 10.0


@pytest.mark.parametrize("strategy", [BestOfN, Weighted])
def test_best_of_n_needs_a_verifier(strategy: type) -> None:
    with pytest.raises(InputError, match="needs a verifier"):
        drain(context(answers("1")).run(strategy(1)))


def test_the_best_finished_answer_is_returned_at_the_deadline() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(in_turn("#### 5", "a long\n" * 40, "#### 5"), clock=clock, batch_seconds=1.0)
    _, outcome = drain(context(policy, clock=clock, deadline=20.0).run(Majority(3)))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.stop_reason, outcome.support) == ("5", "deadline", 1.0)
    assert clock() == 20.0


def test_same_seed_same_events() -> None:
    def run(seed: int) -> object:
        policy = ScriptedPolicy(lambda text, seed: f"step {seed % 5}\n#### {seed % 3}")
        return drain(context(policy, seed=seed).run(Majority(9)))

    assert run(4) == run(4)
    assert run(4) != run(5)
