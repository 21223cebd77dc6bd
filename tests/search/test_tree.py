from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
from searching import PROMPT, announced, context, drain, finished, in_turn, last_step, scored, steps_taken

from edge_tts.core import Budget, Sampling, Trace
from edge_tts.errors import InputError
from edge_tts.events import Outcome
from edge_tts.runtimes.scripted import GREEDY_SEED, ScriptedClock, ScriptedPolicy, ScriptedVerifier
from edge_tts.search.tree import MAX_ROUNDS, TreeSearch
from edge_tts.search.wave import Candidate, End, Wave


def branching(first: Sequence[str], then: Callable[[list[str], int], str]) -> Callable[[str, int], str]:
    """First steps in turn, then what ``then`` says for the steps so far and a running index."""
    starts = iter(first)
    calls = iter(range(10_000))

    def continue_fn(text: str, seed: int) -> str:
        steps = text.removeprefix(PROMPT).split("\n")[:-1]
        step = then(steps, next(calls)) if steps else next(starts)
        return step if step.startswith("####") else step + "\n"

    return continue_fn


def prefixes(policy: ScriptedPolicy, call: int) -> list[str]:
    return ["".join(map(chr, r.tokens)).removeprefix(PROMPT) for r in policy.calls[call]]


def answer_of(outcome: Outcome) -> str | None:
    return outcome.best.answer if outcome.best else None


def test_beam_keeps_the_best_n_over_m_and_expands_each_m_times() -> None:
    policy = ScriptedPolicy(branching("abcdefgh", lambda steps, i: f"#### {i}"))
    verifier = ScriptedVerifier(last_step({"c": 0.9, "f": 0.8, "#### 5": 0.95}))
    events, outcome = drain(context(policy, verifier).run(TreeSearch(n=8, m=4)))
    assert prefixes(policy, 0) == [""] * 8
    assert sorted(prefixes(policy, 1)) == ["c\n"] * 4 + ["f\n"] * 4
    assert all(request.max_steps == 1 for call in policy.calls for request in call)
    assert (answer_of(outcome), outcome.stop_reason) == ("5", "complete")
    assert len(scored(events)) == 16
    assert announced(events) == ["5"]


def test_the_best_finished_trace_beats_the_first_finished() -> None:
    policy = ScriptedPolicy(branching(["#### 1", "go"], lambda steps, i: "#### 2" if len(steps) == 3 else "on"))
    verifier = ScriptedVerifier(last_step({"#### 1": 0.6, "go": 0.5, "on": 0.5, "#### 2": 0.7}))
    events, outcome = drain(context(policy, verifier).run(TreeSearch(n=2, m=1)))
    assert answer_of(outcome) == "2"
    assert announced(events) == ["1", "2"]
    assert {trace.answer for trace in outcome.traces} == {"1", "2"}


def test_a_finished_trace_that_is_not_among_the_best_costs_no_beam() -> None:
    policy = ScriptedPolicy(branching(["#### 1", "a", "b", "c"], lambda steps, i: f"#### 2{i}"))
    verifier = ScriptedVerifier(last_step({"#### 1": 0.1, "a": 0.5, "b": 0.4, "c": 0.3, "#### 20": 0.05}, default=0.05))
    _, outcome = drain(context(policy, verifier).run(TreeSearch(n=4, m=2)))
    assert sorted(prefixes(policy, 1)) == ["a\n", "a\n", "b\n", "b\n"]
    assert answer_of(outcome) == "1"


def test_scores_are_summed_over_equivalent_answers() -> None:
    policy = ScriptedPolicy(in_turn("#### 1", "so\n#### 2", "then\n#### 2.0", "#### 2", "#### 2.0", "#### 3"))
    verifier = ScriptedVerifier(last_step({"#### 1": 0.6, "#### 2": 0.4, "#### 2.0": 0.4, "so": 0.5, "then": 0.5}, 0.1))
    assert answer_of(drain(context(policy, verifier).run(TreeSearch(n=3, m=1)))[1]) == "2"


def test_identical_candidates_are_merged_and_scored_once() -> None:
    policy = ScriptedPolicy(branching("aabb", lambda steps, i: "#### 7"))
    verifier = ScriptedVerifier(last_step({}))
    _, outcome = drain(context(policy, verifier).run(TreeSearch(n=4, m=1)))
    assert len(verifier.scored) == len(set(verifier.scored)) == 4
    assert sorted(prefixes(policy, 1)) == ["a\n", "a\n", "b\n", "b\n"], "the lanes of copies go to what is left"
    assert outcome.support == 1.0


def test_beam_takes_steps_until_the_rounds_are_over() -> None:
    policy = ScriptedPolicy(lambda text, seed: "on\n")
    search = context(policy, ScriptedVerifier(last_step({})), sampling=Sampling(max_tokens=1000))
    _, outcome = drain(search.run(TreeSearch(n=2, m=2)))
    assert len(policy.calls) == MAX_ROUNDS
    assert (outcome.best, outcome.stop_reason) == (None, "complete")
    assert len(outcome.traces[0].steps) == MAX_ROUNDS


def test_beams_without_tokens_left_die() -> None:
    policy = ScriptedPolicy(lambda text, seed: "on\n")
    search = context(policy, ScriptedVerifier(last_step({})), sampling=Sampling(max_tokens=7))
    _, outcome = drain(search.run(TreeSearch(n=2, m=2)))
    assert len(policy.calls) == 3
    assert outcome.best is None


def test_initial_finished_traces_take_part_in_the_choice() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 1")
    verifier = ScriptedVerifier(last_step({"#### 1": 0.3, "#### 9": 0.8}))
    _, outcome = drain(context(policy, verifier).run(TreeSearch(2, 2), [finished("9"), finished("8", 0.1)]))
    assert answer_of(outcome) == "9"
    assert verifier.scored.count(("#### 8",)) == 0


def test_lookahead_scores_the_looked_ahead_text() -> None:
    """The step that looks worse leads to the right answer; only its rollout shows that."""

    def continue_fn(text: str, seed: int) -> str:
        if seed == GREEDY_SEED:
            return "good\nbetter\n#### 1" if text.endswith("plain\n") else "bad\nworse\n#### 2"
        return next(starts) if text == PROMPT else ("#### 1" if "plain" in text else "#### 2")

    scores = {"plain": 0.2, "shiny": 0.8, "good": 0.9, "bad": 0.1, "better": 0.9, "worse": 0.1}
    kept = {}
    for k in (0, 1, 2):
        starts = iter(["plain\n", "shiny\n"])
        policy, verifier = ScriptedPolicy(continue_fn), ScriptedVerifier(last_step(scores))
        search = context(policy, verifier)
        drain(search.run(TreeSearch(2, 2, k)) if k else search.run(TreeSearch(2, 2)))
        kept[k] = set(prefixes(policy, 2 if k else 1))
        if k:
            ahead = ("plain", *["good", "better"][:k])
            assert ahead in verifier.scored
            assert ("plain",) not in verifier.scored
            assert [request.max_steps for request in policy.calls[1]] == [k, k]
            assert [request.sampling.temperature for request in policy.calls[1]] == [0.0, 0.0]
        assert search.usage.policy_tokens == policy.evaluated_tokens
    assert kept == {0: {"shiny\n"}, 1: {"plain\n"}, 2: {"plain\n"}}


def test_lookahead_costs_k_plus_1_generations_each_and_keeps_finished_rollouts() -> None:
    def continue_fn(text: str, seed: int) -> str:
        return "#### 5" if seed == GREEDY_SEED else "never\n"

    verifier = ScriptedVerifier(last_step({}))
    search = context(ScriptedPolicy(continue_fn), verifier, budget=Budget(generations=9))
    _, outcome = drain(search.run(TreeSearch(n=4, m=2, lookahead=1)))
    assert search.ledger.generations == 8
    assert answer_of(outcome) == "5"
    short = context(ScriptedPolicy(continue_fn), verifier, budget=Budget(generations=4))
    _, outcome = drain(short.run(TreeSearch(n=4, m=2, lookahead=1)))
    assert len(short.policy.calls[0]) == 2  # type: ignore[attr-defined]
    assert outcome.stop_reason == "budget: generations"


def test_rollouts_that_end_in_one_text_are_one_attempt_for_the_confidence_too() -> None:
    def continue_fn(text: str, seed: int) -> str:
        return "#### 5" if seed == GREEDY_SEED else "step\n"

    search = context(ScriptedPolicy(continue_fn), ScriptedVerifier(last_step({})), budget=Budget(generations=8))
    _, outcome = drain(search.run(TreeSearch(n=4, m=2, lookahead=1), [finished("6", 0.1)]))
    distinct = {trace.steps for trace in outcome.traces if trace.answer == "5"}
    assert answer_of(outcome) == "5"
    assert outcome.confidence == pytest.approx(len(distinct) / (len(distinct) + 2), abs=1e-4)


def test_a_search_that_is_over_before_the_rollouts_ends_with_what_it_has() -> None:
    waves = TreeSearch(2, 2, lookahead=1).waves([])
    assert isinstance(next(waves), Wave)
    done = Candidate(0, 0, Trace((1, 2, 3), ("#### 4",), finished=True, answer="4"), prompt_tokens=1, room=0)
    half = Candidate(1, 1, Trace((1, 2), ("go",)), prompt_tokens=1, room=5)
    assert isinstance(waves.send([done, half]), Wave)  # the rollouts
    with pytest.raises(StopIteration) as stop:
        waves.send([])
    assert isinstance(stop.value.value, End)


def test_dvts_keeps_one_in_each_subtree() -> None:
    policy = ScriptedPolicy(branching("abcdefgh", lambda steps, i: f"#### {i}"), width=8)
    # Beam search would keep a and b, both of the first subtree.
    verifier = ScriptedVerifier(last_step({"a": 0.9, "b": 0.8, "f": 0.3, "c": 0.1, "e": 0.1, "g": 0.1, "h": 0.1}))
    _, outcome = drain(context(policy, verifier).run(TreeSearch(n=8, m=4, diverse=True)))
    assert prefixes(policy, 0) == [""] * 8
    assert prefixes(policy, 1) == ["a\n"] * 4 + ["f\n"] * 4
    assert len(outcome.traces) == 8


def test_a_finished_trace_leaves_its_place_to_the_next_best() -> None:
    policy = ScriptedPolicy(branching(["#### 1", "x", "a", "b"], lambda steps, i: "#### 2"))
    verifier = ScriptedVerifier(last_step({"#### 1": 0.7, "x": 0.6, "#### 2": 0.9}))
    _, outcome = drain(context(policy, verifier).run(TreeSearch(n=4, m=2, diverse=True)))
    assert prefixes(policy, 1) == ["x\n", "x\n", "a\n", "a\n"]
    assert answer_of(outcome) == "2"


@pytest.mark.parametrize("diverse", [False, True])
def test_the_best_finished_so_far_is_returned_at_the_deadline(diverse: bool) -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(
        branching(["#### 1", "#### 2", "go", "go on"], lambda steps, i: "further"), clock=clock, batch_seconds=0.1
    )
    verifier = ScriptedVerifier(last_step({"#### 1": 0.3, "#### 2": 0.4}), clock=clock, token_seconds=0.001)
    timed = context(policy, verifier, clock=clock, deadline=6.0)
    _, outcome = drain(timed.run(TreeSearch(4, 2, diverse=diverse)))
    assert (answer_of(outcome), outcome.stop_reason) == ("2", "deadline")
    assert 5.0 < clock() <= 6.0
    assert timed.usage.policy_tokens == policy.evaluated_tokens


def test_a_deadline_before_anything_finished() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "on\n", clock=clock, batch_seconds=0.1)
    verifier = ScriptedVerifier(last_step({}), clock=clock, token_seconds=0.001)
    _, outcome = drain(context(policy, verifier, clock=clock, deadline=1.0).run(TreeSearch(4, 2)))
    assert (outcome.best, outcome.stop_reason, outcome.support) == (None, "deadline", 0.0)


def test_a_verifier_too_slow_for_the_deadline_leaves_a_vote() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(in_turn("#### 1", "#### 2", "#### 2.0", "a"), clock=clock, batch_seconds=0.1)
    verifier = ScriptedVerifier(last_step({}), clock=clock, token_seconds=10.0)
    _, outcome = drain(context(policy, verifier, clock=clock, deadline=10.0).run(TreeSearch(4, 2)))
    assert answer_of(outcome) == "2"
    assert verifier.scored == []


def test_token_budget_ends_the_search() -> None:
    policy = ScriptedPolicy(branching(["#### 1", "a"], lambda steps, i: "on"))
    search = context(policy, ScriptedVerifier(last_step({"a": 0.9})), budget=Budget(tokens=40))
    _, outcome = drain(search.run(TreeSearch(2, 2)))
    assert (answer_of(outcome), outcome.stop_reason) == ("1", "budget: tokens")


def test_steps_reuse_the_prefix_that_was_evaluated() -> None:
    policy = ScriptedPolicy(branching("abcd", lambda steps, i: f"#### {i}"))
    search = context(policy, ScriptedVerifier(last_step({})))
    drain(search.run(TreeSearch(4, 2)))
    assert search.usage.policy_tokens - search.usage.generated_tokens == len(PROMPT)


def test_closing_cancels() -> None:
    policy = ScriptedPolicy(lambda text, seed: "on\n")
    running = context(policy, ScriptedVerifier(last_step({}))).run(TreeSearch(4, 2))
    next(running)
    assert policy.running == 1
    running.close()
    assert policy.running == 0


def test_search_over_steps_needs_a_verifier() -> None:
    with pytest.raises(InputError, match="needs a verifier"):
        drain(context(ScriptedPolicy(lambda text, seed: "")).run(TreeSearch(4, 2)))


def test_same_seed_same_search() -> None:
    def noise(text: str) -> float:
        return hashlib.sha256(text.encode()).digest()[0] / 255

    def run(seed: int) -> object:
        policy = ScriptedPolicy(lambda text, seed: f"s{seed % 7}\n" if len(text) < 20 else f"#### {seed % 5}")
        verifier = ScriptedVerifier(lambda question, steps: [noise(step) for step in steps])
        return drain(context(policy, verifier, seed=seed).run(TreeSearch(8, 2)))

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert steps_taken(run(1)[0])  # type: ignore[index]
