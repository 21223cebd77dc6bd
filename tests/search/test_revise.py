from __future__ import annotations

from collections.abc import Callable

from searching import PROMPT, context, drain, finished, in_turn, last_step, steps_taken

from edge_tts.core import Budget, Trace
from edge_tts.runtimes.scripted import ScriptedClock, ScriptedPolicy, ScriptedVerifier
from edge_tts.search.revise import Revise, _attempts


def numbered() -> Callable[[str, int], str]:
    calls = iter(range(1000))
    return lambda text, seed: f"#### {next(calls)}"


def contexts(policy: ScriptedPolicy) -> list[list[str]]:
    """What stood in the open turn, for each request of each call."""
    return [["".join(map(chr, r.tokens)).removeprefix(PROMPT) for r in call] for call in policy.calls]


def test_a_chain_sees_exactly_the_last_four_attempts() -> None:
    policy = ScriptedPolicy(numbered())
    _, outcome = drain(context(policy).run(Revise(sequential=7, parallel=1)))
    revisions = [f"#### {i}\nRevise:\n" for i in range(7)]
    assert contexts(policy) == [["".join(revisions[max(0, i - 4) : i])] for i in range(7)]
    assert [trace.answer for trace in outcome.traces] == [str(i) for i in range(7)]


def test_whole_attempts_stand_in_context() -> None:
    policy = ScriptedPolicy(in_turn("1+1=3\n3*2=6\n#### 6", "#### 4"))
    drain(context(policy).run(Revise(sequential=2, parallel=1)))
    assert contexts(policy)[1] == ["1+1=3\n3*2=6\n#### 6\nRevise:\n"]


def test_chains_advance_together() -> None:
    policy = ScriptedPolicy(numbered(), width=8)
    search = context(policy)
    events, outcome = drain(search.run(Revise(sequential=3, parallel=4)))
    assert [len(call) for call in policy.calls] == [4, 4, 4]
    assert contexts(policy)[2][1] == "#### 1\nRevise:\n#### 5\nRevise:\n"
    assert (len(outcome.traces), search.ledger.generations) == (12, 12)
    assert {event.candidate for event in steps_taken(events)} == {0, 1, 2, 3}


def test_one_attempt_a_chain_is_parallel_sampling() -> None:
    policy = ScriptedPolicy(numbered())
    drain(context(policy).run(Revise(sequential=1, parallel=5)))
    assert contexts(policy) == [[""] * 5]


def test_selection_is_hierarchical() -> None:
    # By rounds: chain 0 says 1, 1, 1; chain 1 says 2, 3, 2; chain 2 says 3, 2, 2.
    policy = ScriptedPolicy(in_turn(*(f"#### {a}" for a in "123132122")))
    verifier = ScriptedVerifier(last_step({"#### 1": 0.5, "#### 2": 0.4, "#### 3": 0.1}))
    _, outcome = drain(context(policy, verifier).run(Revise(sequential=3, parallel=3)))
    assert [trace.answer for trace in outcome.traces] == list("111232322")
    assert outcome.best is not None
    assert outcome.best.answer == "2"
    assert len(verifier.scored) == 3, "each distinct attempt of a round once, and none again"


def test_without_a_verifier_the_chains_vote() -> None:
    policy = ScriptedPolicy(in_turn(*(f"#### {a}" for a in "121232")))
    _, outcome = drain(context(policy).run(Revise(sequential=3, parallel=2)))
    assert [trace.answer for trace in outcome.traces] == list("113222")
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.support) == ("1", 0.5)


def test_attempts_without_an_answer_are_neither_shown_nor_voted_for() -> None:
    policy = ScriptedPolicy(in_turn("lost", "#### 2", "#### 3"))
    _, outcome = drain(context(policy).run(Revise(sequential=3, parallel=1)))
    assert contexts(policy) == [[""], [""], ["#### 2\nRevise:\n"]]
    assert len(outcome.traces) == 3


def test_a_program_that_failed_is_shown_with_its_error() -> None:
    chain = [finished("1"), Trace((1,), finished=True, error="NameError: name 'x' is not defined"), Trace((1, 2))]
    assert _attempts(chain) == (chain[0], chain[1])


def test_initial_samples_are_the_first_attempts() -> None:
    policy = ScriptedPolicy(numbered())
    search = context(policy)
    probe = [finished("a7"), finished("a8"), finished("a9")]
    _, outcome = drain(search.run(Revise(2, 2), probe))
    assert contexts(policy) == [["#### a8\nRevise:\n"]]
    assert len(outcome.traces) == 4
    assert search.ledger.generations == 1


def test_unfinished_initial_samples_are_continued() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 5")
    half = Trace(policy.tokenize(PROMPT + "half\n"), ("half",))
    drain(context(policy).run(Revise(2, 1), [half]))
    assert contexts(policy) == [["half\n"], ["half\n#### 5\nRevise:\n"]]


def test_generation_budget_cuts_a_round_short() -> None:
    policy = ScriptedPolicy(numbered())
    search = context(policy, budget=Budget(generations=5))
    events, outcome = drain(search.run(Revise(sequential=4, parallel=3)))
    assert [len(call) for call in policy.calls] == [3, 2]
    assert (len(outcome.traces), outcome.stop_reason) == (5, "budget: generations")
    assert [event.candidate for event in steps_taken(events)] == [0, 1, 2, 0, 1]


def test_the_best_so_far_is_returned_at_the_deadline() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(in_turn("#### 1", "#### 2", "#### 3" * 50), clock=clock, batch_seconds=0.1)
    verifier = ScriptedVerifier(last_step({"#### 1": 0.9, "#### 2": 0.2}), clock=clock, token_seconds=0.01)
    timed = context(policy, verifier, clock=clock, deadline=3.0)
    _, outcome = drain(timed.run(Revise(sequential=3, parallel=1)))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.stop_reason) == ("1", "deadline")
    assert clock() <= 3.0
    assert timed.usage.policy_tokens == policy.evaluated_tokens


def test_closing_cancels() -> None:
    policy = ScriptedPolicy(numbered(), width=1)
    running = context(policy).run(Revise(2, 2))
    next(running)
    assert policy.running == 1
    running.close()
    assert policy.running == 0
