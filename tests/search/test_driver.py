from __future__ import annotations

from collections.abc import Sequence

import pytest
from searching import (
    PROMPT,
    QUESTION,
    Proposed,
    announced,
    context,
    drain,
    finished,
    in_turn,
    last_step,
    scored,
    steps_taken,
)

from edge_tts.core import (
    Budget,
    Sampling,
    Scored,
    Trace,
)
from edge_tts.errors import InputError
from edge_tts.events import StepTaken
from edge_tts.runtimes.scripted import ScriptedClock, ScriptedPolicy, ScriptedVerifier
from edge_tts.search.ledger import Ledger
from edge_tts.search.pace import Pace
from edge_tts.search.sampling import BestOfN, Majority, Weighted
from edge_tts.search.strategy import Strategy
from edge_tts.search.wave import Start, Wave


def test_usage_is_what_the_models_evaluated() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(in_turn("1+1=2\n#### 2", "#### 3"), parameters=7, clock=clock, batch_seconds=0.5)
    verifier = ScriptedVerifier(last_step({}), parameters=3, clock=clock, token_seconds=0.1)
    search = context(policy, verifier, clock=clock)
    drain(search.run(Weighted(2)))
    usage = search.usage
    verified = 2 * len(QUESTION) + len("1+1=2#### 2") + len("#### 3")
    assert usage.policy_tokens == policy.evaluated_tokens
    assert usage.generated_tokens == policy.evaluated_tokens - len(PROMPT)
    assert usage.policy_flops == 2 * 7 * policy.evaluated_tokens
    assert usage.verifier_tokens == verified
    assert usage.verifier_flops == 2 * 3 * verified
    assert usage.verifier_seconds == pytest.approx(0.1 * verified)
    assert usage.seconds == pytest.approx(clock())


def test_a_step_cut_by_the_deadline_is_charged_and_dropped() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "1+1=2\n#### 27", clock=clock, batch_seconds=1.0)
    search = context(policy, clock=clock, deadline=12.0)  # two tokens before the end: "#### 2" is not an answer
    events, outcome = drain(search.run(Majority(1)))
    assert [event.text for event in steps_taken(events)] == ["1+1=2"]
    assert outcome.best is None
    assert outcome.stop_reason == "deadline"
    assert outcome.traces[0].steps == ("1+1=2",)
    assert search.usage.policy_tokens == policy.evaluated_tokens == len(PROMPT) + 12


def test_an_answer_cut_by_the_token_limit_is_no_answer() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 27")
    search = context(policy, sampling=Sampling(max_tokens=6))
    _, outcome = drain(search.run(Majority(1)))
    assert outcome.best is None
    assert outcome.traces[0].steps == ("#### 2",)
    assert not outcome.traces[0].finished
    assert outcome.stop_reason == "complete"


def test_traces_are_continued_from_their_tokens_within_what_is_left_to_them() -> None:
    policy = ScriptedPolicy(lambda text, seed: "abc\n" * 10)
    search = context(policy, sampling=Sampling(max_tokens=10))
    more = [lambda last: Wave(resume=tuple(last), steps=1)] * 3
    strategy = Proposed([lambda last: Wave(Wave.samples(1), steps=1), *more])
    drain(search.run(strategy))
    assert [grown[0].room for grown in strategy.grown] == [6, 2, 0, 0]
    assert strategy.grown[-1][0].trace.steps == ("abc", "abc", "ab")
    assert [call[0].sampling.max_tokens for call in policy.calls] == [10, 6, 2]


def test_nothing_is_generated_after_an_answer() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 5\nand\nso\non")
    events, outcome = drain(context(policy).run(Majority(2)))
    assert [(e.text, e.finished) for e in steps_taken(events)] == [("#### 5", True)] * 2
    assert [trace.steps for trace in outcome.traces] == [("#### 5",)] * 2
    assert policy.running == 0


def test_token_budget_stops_between_steps_and_charges_what_it_abandons() -> None:
    policy = ScriptedPolicy(lambda text, seed: "abcd\n" * 20, width=4)
    search = context(policy, budget=Budget(tokens=len(PROMPT) + 12))
    _, outcome = drain(search.run(Majority(4)))
    assert outcome.stop_reason == "budget: tokens"
    assert policy.running == 0
    # Steps of all four were under way; three events of five tokens were seen.
    assert search.ledger.usage.generated_tokens == 15 + round(4 * 5 / 2)
    assert abs(search.usage.policy_tokens - policy.evaluated_tokens) <= 10


def test_a_request_never_asks_for_more_than_the_token_budget() -> None:
    policy = ScriptedPolicy(lambda text, seed: "x" * 100)
    search = context(policy, budget=Budget(tokens=30))
    _, outcome = drain(search.run(Majority(1)))
    assert policy.calls[0][0].sampling.max_tokens == 30
    assert outcome.stop_reason == "budget: tokens"


def test_flops_budget_keeps_room_for_scoring() -> None:
    policy = ScriptedPolicy(lambda text, seed: "abcd\n#### 5", parameters=1, width=1)
    verifier = ScriptedVerifier(last_step({}), parameters=100)
    generous = context(policy, verifier, budget=Budget(flops=1e6))
    assert drain(generous.run(Weighted(4)))[1].stop_reason == "complete"
    spent = generous.usage.policy_flops + generous.usage.verifier_flops
    tight = context(policy, verifier, budget=Budget(flops=spent / 2))
    _, outcome = drain(tight.run(Weighted(4)))
    assert outcome.stop_reason == "budget: flops"
    assert tight.usage.policy_flops < generous.usage.policy_flops


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"deadline": 5.0}, "deadline"),
        ({"budget": Budget(seconds=5.0)}, "deadline"),
        ({"budget": Budget(joules=10.0), "watts": 2.0}, "budget: joules"),
        ({"budget": Budget(joules=10.0, seconds=9.0), "watts": 2.0, "deadline": 8.0}, "budget: joules"),
    ],
)
def test_time_ends_in_several_ways(settings: dict[str, object], reason: str) -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "abc\n" * 50, clock=clock, batch_seconds=1.0)
    search = context(policy, clock=clock, **settings)
    assert search.ledger.exhausted() is None
    _, outcome = drain(search.run(Majority(2)))
    assert outcome.stop_reason == reason
    assert clock() == 5.0
    assert search.ledger.exhausted() == reason


def test_joules_need_watts() -> None:
    with pytest.raises(InputError, match="10 joules"):
        context(ScriptedPolicy(lambda text, seed: ""), budget=Budget(joules=10.0))


def test_a_deadline_that_has_passed_runs_nothing() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 1")
    search = context(policy, clock=ScriptedClock(3.0), deadline=3.0)
    events, outcome = drain(search.run(Majority(4)))
    assert (events, outcome.best, outcome.stop_reason) == ([], None, "deadline")
    assert policy.calls == []


def test_generations_are_claimed_once() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 1")
    ledger = Ledger(policy.info, budget=Budget(generations=5))
    assert [ledger.claim(n) for n in (3, 0, -1, 3, 3)] == [3, 0, 0, 2, 0]
    assert ledger.generations == 5
    assert ledger.clipped


def test_samples_begin_a_few_at_once_where_time_is_short() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "1+1=2\n#### 2", width=8, clock=clock, batch_seconds=1.0)
    pace = Pace(1.0)  # of 50 tokens each, one ends in half of 100 s
    search = context(policy, clock=clock, deadline=100.0, pace=pace)
    _, outcome = drain(search.run(Majority(20)))
    first, second, third = (len(call) for call in policy.calls)
    assert first == 1
    assert 1 < second < policy.width  # the first was shorter than usual
    assert third == 20 - first - second
    assert outcome.best is not None
    assert outcome.stop_reason == "complete"
    assert pace.tokens_per_second > second  # they ran side by side


def test_samples_that_never_began_are_not_counted() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "1+1=2\n#### 2", width=4, clock=clock, batch_seconds=1.0)
    short = context(policy, clock=clock, deadline=20.0, pace=Pace(1.0))
    _, outcome = drain(short.run(Majority(20)))
    assert outcome.stop_reason == "deadline"
    assert [len(call) for call in policy.calls] == [1, 1]
    assert short.usage.generations == 2
    wide = context(policy, clock=clock, deadline=clock() + 20.0)
    drain(wide.run(Majority(20)))
    assert wide.usage.generations == 8  # of four at once, four ended and four were cut
    steps = ScriptedPolicy(lambda text, seed: "1+1=2\n" * 9, width=1, clock=clock, batch_seconds=1.0)
    cut = context(steps, clock=clock, deadline=clock() + 12.0)  # right after the second step
    drain(cut.run(Majority(4)))
    assert cut.usage.generations == 1


def test_the_policy_leaves_time_for_scoring() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "abc\n" * 50, clock=clock, batch_seconds=0.1)
    verifier = ScriptedVerifier(last_step({}), clock=clock, token_seconds=0.01)
    search = context(policy, verifier, clock=clock, deadline=10.0, sampling=Sampling(max_tokens=120))
    strategy = Proposed([lambda last: Wave(Wave.samples(1), score="all")])
    events, outcome = drain(search.run(strategy))
    (candidate,) = strategy.grown[0]
    scoring = verifier.seconds(len(QUESTION) + sum(map(len, candidate.trace.steps)))
    assert clock() - scoring == pytest.approx(10.0 - 0.01 * (len(PROMPT) + 120), abs=0.11)
    assert len(scored(events)) == 1
    assert clock() <= 10.0
    assert outcome.stop_reason == "deadline"


def test_scoring_that_would_overrun_is_skipped() -> None:
    clock = ScriptedClock()
    verifier = ScriptedVerifier(last_step({}), clock=clock, token_seconds=1.0)
    search = context(ScriptedPolicy(lambda text, seed: ""), verifier, clock=clock, deadline=2.0)
    half = Trace((*search.driver.root, 1, 2, 3), ("abc",), finished=True, answer="3")
    events, outcome = drain(search.run(BestOfN(1), [half]))
    assert scored(events) == []
    assert verifier.scored == []
    assert outcome.traces[0].scores == ()


def test_a_cancelled_search_gives_what_it_has() -> None:
    policy = ScriptedPolicy(lambda text, seed: "#### 1" if text == PROMPT and not seed % 2 else "abc\n" * 50)
    search = context(policy, ScriptedVerifier(last_step({})))
    events = search.run(Weighted(8))
    while not isinstance(event := next(events), StepTaken) or not event.finished:
        pass
    search.ledger.cancel.request()
    rest, outcome = drain(events)
    assert len(steps_taken(rest)) < policy.width  # of the batch that was under way
    assert scored(rest) == []
    assert outcome.stop_reason == search.ledger.exhausted() == "cancelled"
    assert outcome.best is not None
    assert outcome.best.answer == "1"
    assert policy.running == 0
    assert search.ledger.seconds_left() == 0


def test_scoring_that_is_cancelled_leaves_traces_unscored() -> None:
    def cancelling(question: str, steps: Sequence[str]) -> list[float]:
        search.ledger.cancel.request()
        return [0.5] * len(steps)

    search = context(ScriptedPolicy(lambda text, seed: ""), ScriptedVerifier(cancelling))
    events, outcome = drain(search.run(BestOfN(2), [finished("1"), finished("2")]))
    assert scored(events) == []
    assert [trace.scores for trace in outcome.traces] == [(), ()]
    assert search.usage.verifier_tokens == len(QUESTION) + len("#### 1")


def test_equal_traces_are_scored_once_and_scored_ones_never_again() -> None:
    verifier = ScriptedVerifier(last_step({"#### 1": 0.25}))
    search = context(ScriptedPolicy(lambda text, seed: ""), verifier)
    events, outcome = drain(search.run(BestOfN(3), [finished("1"), finished("2", 0.9), finished("1")]))
    assert verifier.scored == [("#### 1",)]
    assert [(event.candidate, event.score) for event in scored(events)] == [(0, 0.25), (2, 0.25)]
    assert [trace.scores for trace in outcome.traces] == [(0.25,), (0.9,), (0.25,)]


def test_seeds_depend_on_seed_and_index_only() -> None:
    def seeds(seed: int) -> list[int]:
        policy = ScriptedPolicy(lambda text, seed: "#### 1")
        waves = [lambda last, count=count: Wave(Wave.samples(count)) for count in (3, 2)]
        drain(context(policy, seed=seed).run(Proposed(waves)))
        return [request.seed for call in policy.calls for request in call]

    assert seeds(1) == seeds(1)
    assert len(set(seeds(1) + seeds(2))) == 10
    assert all(0 <= seed < 2**31 for seed in seeds(3))


def test_a_question_that_fills_the_context_is_refused() -> None:
    with pytest.raises(InputError, match="context is 20"):
        context(ScriptedPolicy(lambda text, seed: "", context_length=20), question="x" * 100)


def test_attempts_that_do_not_fit_are_dropped_oldest_first() -> None:
    policy = ScriptedPolicy(lambda text, seed: "", context_length=60)
    search = context(policy, sampling=Sampling(max_tokens=20))
    attempts = tuple(Trace((), (text,)) for text in ("a" * 15, "b" * 15, "c" * 5))
    drain(search.run(Proposed([lambda last: Wave((Start(0, attempts=attempts),))])))
    text = "".join(map(chr, policy.calls[0][0].tokens))
    assert "a" not in text
    assert "c" * 5 in text
    assert len(text) + 20 <= 60


def test_best_so_far_is_announced_when_it_changes() -> None:
    policy = ScriptedPolicy(in_turn("lost", "#### 1", "#### 1", "#### 2", "#### 2", "#### 2"), width=1)
    events, _ = drain(context(policy).run(Majority(6)))
    assert announced(events) == ["1", "2"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1, 1.5])
@pytest.mark.parametrize("kind", ["best-of-n", "weighted", "beam", "dvts", "lookahead", "particles", "revise"])
def test_a_score_out_of_range_never_wins_and_never_costs_the_question(kind: str, bad: float) -> None:
    class Faulty(ScriptedVerifier):
        def score(self, question: str, traces: Sequence[Sequence[str]], cancel: object = None) -> list[Scored]:
            return [Scored(tuple(bad if "9" in step else 0.3 for step in steps), 1) for steps in traces]

    policy = ScriptedPolicy(lambda text, seed: "#### 9" if seed % 3 == 0 else "#### 4")
    search = context(policy, Faulty(last_step({})), seed=1)
    _, outcome = drain(search.run(Strategy.parse(kind, 8).proposer()))
    assert outcome.best is not None
    assert outcome.best.answer == "4"
    assert all(0 <= score <= 1 for trace in outcome.traces for score in trace.scores)


def test_closing_a_search_cancels_the_policy_and_charges_it() -> None:
    policy = ScriptedPolicy(lambda text, seed: "abcd\n" * 20)
    search = context(policy)
    running = search.run(Majority(4))
    assert isinstance(next(running), StepTaken)
    assert policy.running == 1
    running.close()
    assert policy.running == 0
    assert search.usage.generated_tokens == 5 + round(4 * 5 / 2)
