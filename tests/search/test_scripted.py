from __future__ import annotations

from collections.abc import Generator

import pytest
from searching import in_turn

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    StepEvent,
    Verifier,
)
from edge_tts.errors import InputError
from edge_tts.runtimes.scripted import END_TOKEN, GREEDY_SEED, ScriptedClock, ScriptedPolicy, ScriptedVerifier


def request(policy: Policy, text: str, seed: int = 0, max_steps: int | None = None, max_tokens: int = 100) -> Request:
    return Request(policy.tokenize(text), seed, Sampling(max_tokens=max_tokens), max_steps)


def texts(events: list[StepEvent], index: int) -> list[str]:
    return [event.text for event in events if event.request == index]


def test_steps_end_token_and_prefill() -> None:
    policy = ScriptedPolicy(lambda text, seed: "ab\ncd")
    first, last = policy.generate([request(policy, "pp")])
    assert (first.text, first.tokens, first.stop, first.prefill_tokens) == ("ab", tuple(map(ord, "ab\n")), None, 2)
    assert (last.text, last.stop, last.prefill_tokens) == ("cd", "end", 0)
    assert last.tokens == (ord("c"), ord("d"), END_TOKEN)
    assert policy.evaluated_tokens == 2 + 3 + 3


def test_a_stop_text_ends_a_continuation() -> None:
    policy = ScriptedPolicy(lambda text, seed: "ab\ncd#e")
    events = list(policy.generate([Request(policy.tokenize("p"), 0, Sampling(stop=("x", "#")))]))
    assert [(event.text, event.stop) for event in events] == [("ab", None), ("cd", "end")]


def test_known_prefixes_are_not_evaluated_again() -> None:
    policy = ScriptedPolicy(lambda text, seed: "ab\ncd\n")
    [step] = policy.generate([request(policy, "prompt", max_steps=1)])
    assert (step.stop, step.prefill_tokens) == ("step", 6)
    events = list(policy.generate([request(policy, "promptab\n"), request(policy, "promptab\nxy")]))
    assert sum(event.prefill_tokens for event in events) == 2


def test_requests_interleave_in_slots() -> None:
    policy = ScriptedPolicy(in_turn("aaaa\nbbbb", "c\nd", "e\nf"), width=2)
    events = list(policy.generate([request(policy, "p") for _ in range(3)]))
    assert [event.request for event in events] == [1, 1, 0, 2, 2, 0]
    assert texts(events, 0) == ["aaaa", "bbbb"]


def test_token_limit_and_full_context() -> None:
    policy = ScriptedPolicy(lambda text, seed: "abcdef", context_length=8)
    [event] = policy.generate([request(policy, "p", max_tokens=3)])
    assert (event.text, event.stop) == ("abc", "length")
    [event] = policy.generate([request(policy, "12345")])
    assert (event.text, event.stop) == ("abc", "length")
    with pytest.raises(InputError, match="8 tokens"):
        list(policy.generate([request(policy, "12345678")]))


def test_deadline_cancels_running_and_waiting_requests() -> None:
    clock = ScriptedClock()
    policy = ScriptedPolicy(lambda text, seed: "abcdefgh", width=1, clock=clock, batch_seconds=1.0)
    events = list(policy.generate([request(policy, "p"), request(policy, "p")], deadline=3.0))
    assert [(event.request, event.text, event.stop) for event in events] == [
        (0, "abc", "cancelled"),
        (1, "", "cancelled"),
    ]
    assert sum(len(e.tokens) + e.prefill_tokens for e in events) == policy.evaluated_tokens
    assert clock() == 3.0


def test_seeds_reach_the_script_and_greedy_is_marked() -> None:
    policy = ScriptedPolicy(lambda text, seed: str(seed))
    greedy = Request(policy.tokenize("p"), 9, Sampling(temperature=0))
    assert [e.text for e in policy.generate([request(policy, "p", seed=7)])] == ["7"]
    assert [e.text for e in policy.generate([greedy])] == [str(GREEDY_SEED)]


def test_closing_the_iterator_cancels() -> None:
    policy = ScriptedPolicy(lambda text, seed: "a\nb\nc")
    events = policy.generate([request(policy, "p")])
    assert isinstance(events, Generator)
    next(events)
    assert policy.running == 1
    events.close()
    assert policy.running == 0
    assert policy.evaluated_tokens == 3


def test_verifier_counts_each_trace_once() -> None:
    clock = ScriptedClock()
    verifier: Verifier = ScriptedVerifier(lambda q, steps: [0.5] * len(steps), clock=clock, token_seconds=0.1)
    first, again = verifier.score("qq", [("abc",), ("abc",)])
    assert (first.scores, first.tokens, again.tokens) == ((0.5,), 5, 0)
    assert clock() == pytest.approx(0.5)
    assert verifier.seconds(10) == pytest.approx(1.0)


@pytest.mark.parametrize("scores", [[], [0.1, 0.2], [1.5], [-0.1]])
def test_verifier_rejects_scores_that_do_not_fit(scores: list[float]) -> None:
    with pytest.raises(InputError, match="one score in"):
        ScriptedVerifier(lambda q, steps: scores).score("q", [("a",)])
