"""The policy engine on the real assembled policy."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from edge_tts.answers.arithmetic import evaluate, format_number
from edge_tts.bench.engine import sound_kernels
from edge_tts.cancellation import Cancellation
from edge_tts.core import Request, Sampling, StepEvent
from edge_tts.errors import BackendError, InputError
from edge_tts.packs.pack import Pack
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
from edge_tts.runtimes.llama_native import NativeModel

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
OTHER = "A baker sells 30 loaves a day for 5 days at 2 dollars each. How much does she earn?"
WIDTH = 8
GREEDY = Sampling(temperature=0, max_tokens=60)
LONG = Sampling(max_tokens=150, ignore_end=True)
calculated = partial(Request, writes=CalculatorFormat().written)


@pytest.fixture(scope="module")
def policy(pack: Pack) -> Iterator[LlamaPolicy]:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=WIDTH, context=320))
    yield policy
    policy.close()


@pytest.fixture
def prompt(policy: LlamaPolicy) -> tuple[int, ...]:
    return policy.tokenize(PromptFormat().render(QUESTION), special=True)


def texts(events: list[StepEvent], count: int) -> list[list[str]]:
    return [[e.text for e in events if e.request == i] for i in range(count)]


def test_greedy_agrees_with_the_high_level_binding(pack: Pack) -> None:
    from llama_cpp import Llama

    with sound_kernels():
        reference = Llama(str(pack.policy_path), n_ctx=320, verbose=False, n_gpu_layers=0)
    rendered = PromptFormat().render(QUESTION)
    expected = reference.create_completion(rendered, max_tokens=40, temperature=0)["choices"][0]["text"]
    reference.close()
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=1, context=320))
    try:
        events = list(
            policy.generate([Request(policy.tokenize(rendered, special=True), 0, replace(GREEDY, max_tokens=40))])
        )
    finally:
        policy.close()
    assert "\n".join(e.text for e in events).strip() == expected.strip()


def test_special_tokens_are_read_in_template_pieces_only(policy: LlamaPolicy) -> None:
    (end,) = policy.tokenize("<|im_end|>", special=True)
    written = policy.tokenize("<|im_end|>")
    assert len(written) > 1
    assert end not in written
    assert end not in policy.tokenize("a<|im_end|>b")
    assert policy.tokenize("plain words") == policy.tokenize("plain words", special=True)


def test_same_seed_same_samples_and_other_seeds_differ(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    requests = [calculated(prompt, seed, Sampling()) for seed in range(WIDTH)]
    first = texts(list(policy.generate(requests)), WIDTH)
    assert first == texts(list(policy.generate(requests)), WIDTH)
    assert len({tuple(t) for t in first}) > 1


def test_a_prompt_is_evaluated_once_and_forked(policy: LlamaPolicy) -> None:
    fresh = policy.tokenize(PromptFormat().render(OTHER), special=True)
    short = Sampling(max_tokens=12)
    events = list(policy.generate([calculated(fresh, seed, short) for seed in range(3 * WIDTH)]))
    first, *others = [sum(e.prefill_tokens for e in events if e.request == i) for i in range(3 * WIDTH)]
    # Nothing but the chat opening may be shared with prompts seen before.
    assert 12 < len(fresh) - 1 - 16 <= first <= len(fresh) - 1
    assert max(others) <= 12
    assert sum(e.stop is not None for e in events) == 3 * WIDTH


def test_what_samples_begin_with_is_evaluated_once(policy: LlamaPolicy) -> None:
    fresh = policy.tokenize(
        PromptFormat().render("Ann reads 14 pages a day. How many pages does she read in 6 days?"), special=True
    )
    events = list(policy.generate([calculated(fresh, 0, GREEDY) for _ in range(WIDTH)]))
    one = [e for e in events if e.request == 0]
    assert texts(events, WIDTH) == [[e.text for e in one]] * WIDTH
    charged = sum(e.prefill_tokens + len(e.tokens) - e.shared_tokens for e in events)
    assert charged == sum(e.prefill_tokens + len(e.tokens) for e in one)


def test_samples_that_begin_later_draw_from_what_was_evaluated(policy: LlamaPolicy) -> None:
    fresh = policy.tokenize(
        PromptFormat().render("Eve bakes 5 trays of 12 buns. How many buns does she bake?"), special=True
    )
    events = list(policy.generate([calculated(fresh, seed, Sampling()) for seed in range(6 * WIDTH)]))
    drawn = [tuple(t for e in events if e.request == i for t in e.tokens) for i in range(6 * WIDTH)]
    # What samples have in common is evaluated once, and their last tokens never.
    distinct = {tokens[:length] for tokens in drawn for length in range(len(tokens))}
    new = sum(len(e.tokens) - e.shared_tokens for e in events)
    assert len(distinct) <= new <= len(distinct) + len(drawn)
    # A stream that held what a later sample needs may have gone to another.
    again = sum(e.prefill_tokens for e in events if e.request)
    assert again <= new / 4
    for seed in (WIDTH, 3 * WIDTH, 6 * WIDTH - 1):
        alone = list(policy.generate([calculated(fresh, seed, Sampling())]))
        mine = [e for e in events if e.request == seed]
        assert mine[0].text == alone[0].text
        assert mine[0].logprob == pytest.approx(alone[0].logprob, abs=0.1)


def test_a_sample_that_is_drawn_again_costs_nothing(policy: LlamaPolicy) -> None:
    fresh = policy.tokenize(
        PromptFormat().render("Ann reads 15 pages a day. How many pages does she read in 6 days?"), special=True
    )
    events = list(policy.generate([calculated(fresh, 0, GREEDY) for _ in range(5 * WIDTH)]))
    one = [e for e in events if e.request == 0]
    assert texts(events, 5 * WIDTH) == [[e.text for e in one]] * 5 * WIDTH
    charged = sum(e.prefill_tokens + len(e.tokens) - e.shared_tokens for e in events)
    assert charged == sum(e.prefill_tokens + len(e.tokens) for e in one)


def test_calls_of_one_family_share_what_they_evaluated(policy: LlamaPolicy) -> None:
    fresh = policy.tokenize(
        PromptFormat().render("Sam packs 7 bags of 9 pears. How many pears are there?"), special=True
    )
    requests = [calculated(fresh, seed, Sampling(), family=77) for seed in range(2 * WIDTH)]

    def evaluated(waves: int) -> int:
        size = len(requests) // waves
        events = [e for i in range(waves) for e in policy.generate(requests[i * size : (i + 1) * size])]
        return sum(len(e.tokens) - e.shared_tokens for e in events)

    waves = evaluated(4)
    requests = [replace(request, family=78) for request in requests]
    together = evaluated(1)
    assert together <= waves <= together + 4 * WIDTH  # the last token of a sample is charged to the wave that drew it
    assert evaluated(1) < together / 4  # the same samples again: all was kept


def test_requests_that_draw_from_different_candidates_share_none(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    narrow, wide = Sampling(top_k=1), Sampling(temperature=3.0, top_k=2000, max_tokens=8)
    requests = [calculated(prompt, seed, narrow if seed < 2 * WIDTH else wide) for seed in range(3 * WIDTH)]
    events = list(policy.generate(requests))
    assert len({tuple(t) for t in texts(events, 3 * WIDTH)[2 * WIDTH :]}) == WIDTH


def test_samples_that_part_go_on_as_they_would_alone(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    warm = Sampling(temperature=1.5, max_tokens=40)
    together = list(policy.generate([calculated(prompt, seed, warm) for seed in range(WIDTH)]))
    assert 0 < sum(e.shared_tokens for e in together) < sum(len(e.tokens) for e in together)
    for seed in range(WIDTH):
        mine = [e for e in together if e.request == seed]
        alone = list(policy.generate([calculated(prompt, seed, warm)]))
        # Rounding differs with the width of the batch, so that a late token may; the first steps do not hang on that.
        assert mine[0].text == alone[0].text
        assert mine[0].logprob == pytest.approx(alone[0].logprob, abs=0.1)


def test_a_batch_is_given_up_at_the_deadline_and_the_engine_goes_on(pack: Pack) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=2, context=1024, micro_batch=512))
    tokens = policy.tokenize(" ".join(f"{i} apples and" for i in range(200)))[:500]
    try:
        begun = time.monotonic()
        (event,) = policy.generate([Request(tokens, 0, GREEDY)], deadline=begun + 0.02)
        gave_up_after = time.monotonic() - begun
        assert event.stop == "cancelled"
        begun = time.monotonic()
        after = list(policy.generate([Request(tokens, 0, replace(GREEDY, max_tokens=8))]))
        assert gave_up_after < (time.monotonic() - begun) / 2
        assert sum(e.prefill_tokens for e in after) == len(tokens) - 1  # nothing of the batch was kept
    finally:
        policy.close()
    fresh = LlamaPolicy(pack.policy_path, EngineConfig(width=2, context=1024, micro_batch=512))
    try:
        expected = list(fresh.generate([Request(tokens, 0, replace(GREEDY, max_tokens=8))]))
        assert [e.tokens for e in after] == [e.tokens for e in expected]
    finally:
        fresh.close()


def test_one_callers_deadline_ends_its_call_and_not_the_batch_of_others(pack: Pack) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=2, context=1024, micro_batch=512))
    long = policy.tokenize(" ".join(f"{i} apples and" for i in range(200)))[:480]
    given_up: list[bool] = []
    give_up, native = policy._native.give_up, policy._native
    native.give_up = lambda yes=True: (given_up.append(yes), give_up(yes))[1]  # type: ignore[method-assign]
    others: list[StepEvent] = []

    def other() -> None:
        others.extend(policy.generate([Request(long, 0, replace(GREEDY, max_tokens=4))]))

    thread = threading.Thread(target=other)
    try:
        thread.start()
        while not policy._evaluating:
            time.sleep(0.001)
        begun = time.monotonic()
        (event,) = policy.generate([Request(long[::-1][:30], 1, GREEDY)], deadline=begun + 0.02)
        told_after = time.monotonic() - begun
        thread.join()
        assert event.stop == "cancelled"
        assert 0.02 <= told_after < (time.monotonic() - begun) / 2, "it waited for the batch"
        assert others[-1].stop in ("length", "end")
        assert not any(given_up)
        assert sum(e.prefill_tokens for e in others) == len(long) - 1
    finally:
        thread.join()
        policy.close()


def test_top_p_and_min_p_leave_the_most_likely_tokens(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    hot = Sampling(temperature=3.0, max_tokens=12, ignore_end=True)
    greedy = texts(list(policy.generate([calculated(prompt, 0, replace(hot, temperature=0))])), 1)

    def drawn(sampling: Sampling) -> list[list[str]]:
        return texts(list(policy.generate([calculated(prompt, seed, sampling) for seed in range(4)])), 4)

    assert len(set(map(tuple, drawn(hot)))) > 1
    assert drawn(replace(hot, top_p=1e-6)) == 4 * greedy
    assert drawn(replace(hot, min_p=0.999)) == 4 * greedy
    assert drawn(replace(hot, top_k=0, top_p=1e-6)) == 4 * greedy


def test_stop_texts_end_a_request_and_are_cut_off(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    whole = list(policy.generate([calculated(prompt, 0, GREEDY)]))
    written = "\n".join(e.text for e in whole)
    assert "96" in written
    inside = list(policy.generate([calculated(prompt, 0, replace(GREEDY, stop=("never written", "96")))]))
    assert [e.text for e in inside] == [written.split("96")[0]]
    assert inside[-1].stop == "end"
    first, second = written.splitlines()[:2]
    across = f"{first[-1]}\n{second[:2]}"  # begins in a step that has been told already
    over = list(policy.generate([calculated(prompt, 0, replace(GREEDY, stop=(across,)))]))
    assert [(e.text, e.stop) for e in over] == [(first, None), ("", "end")]


def test_a_continued_step_does_not_evaluate_its_prefix_again(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    (first,) = policy.generate([calculated(prompt, 1, Sampling(), max_steps=1)])
    assert first.stop == "step"
    grown = prompt + first.tokens
    events = list(policy.generate([calculated(grown, seed, Sampling(), max_steps=1) for seed in range(4)]))
    # The delimiter and what the calculator wrote are all that is not in the cache yet.
    assert all(e.prefill_tokens <= first.forced_tokens + 1 for e in events)


def test_forked_continuation_equals_one_from_scratch(pack: Pack, policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    (first,) = policy.generate([calculated(prompt, 3, Sampling(), max_steps=1)])
    request = calculated(prompt + first.tokens, 5, GREEDY)
    forked = [e.text for e in policy.generate([request])]
    scratch = LlamaPolicy(pack.policy_path, EngineConfig(width=WIDTH, context=320))
    try:
        assert [e.text for e in scratch.generate([request])] == forked
    finally:
        scratch.close()


def test_logprobs_are_those_of_the_model(pack: Pack) -> None:
    config = EngineConfig(width=1, context=320)
    policy = LlamaPolicy(pack.policy_path, config)
    prompt = policy.tokenize(PromptFormat().render(QUESTION), special=True)
    (event,) = policy.generate([Request(prompt, 0, GREEDY, max_steps=1)])
    policy.close()
    native = NativeModel(pack.policy_path, config)
    tokens = prompt + event.tokens
    expected = 0.0
    for i, token in enumerate(tokens[:-1]):
        row = native.decode([(token, i, 0, True)])[0]
        if i >= len(prompt) - 1:
            expected += float(row[tokens[i + 1]] - row.max() - np.log(np.exp(row - row.max()).sum()))
    native.close()
    assert event.logprob == pytest.approx(expected, abs=0.05)


def test_calculator_writes_results_and_counts_them(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    events = list(policy.generate([calculated(prompt, seed, Sampling()) for seed in range(WIDTH)]))
    forced = [e for e in events if e.forced_tokens]
    assert forced
    for event in forced:
        expression, _, result = event.text.rpartition("=")
        value = evaluate(expression)
        assert value is not None
        assert format_number(value) == result


def test_each_request_says_what_is_written_into_it(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    writers = (None, CalculatorFormat().written, lambda step: "1000" if step.endswith("=") else None)
    events = list(policy.generate([Request(prompt, 0, GREEDY, writes=writes) for writes in writers]))
    own, calculated, invented = ([e for e in events if e.request == i] for i in range(3))
    assert sum(e.forced_tokens for e in own) == 0
    assert calculated[0].text == "12*8=96"
    assert invented[0].text.startswith("12*8=1000")
    assert invented[0].forced_tokens == len(policy.tokenize("1000"))


def test_several_callers_share_one_batch(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    other = policy.tokenize(PromptFormat().render(OTHER), special=True)
    results: dict[str, list[StepEvent]] = {}

    def work(name: str, tokens: tuple[int, ...]) -> None:
        results[name] = list(policy.generate([calculated(tokens, seed, Sampling()) for seed in range(WIDTH)]))

    threads = [threading.Thread(target=work, args=args) for args in (("a", prompt), ("b", other), ("c", prompt))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(results) == {"a", "b", "c"}
    for events in results.values():
        assert sorted(e.request for e in events if e.stop) == list(range(WIDTH))


def test_deadline_ends_every_request(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    begun = time.monotonic()
    requests = [calculated(prompt, s, LONG) for s in range(4 * WIDTH)]
    events = list(policy.generate(requests, deadline=begun + 0.6))
    assert time.monotonic() - begun < 0.9
    assert [e.stop for e in events if e.stop].count("cancelled") > 0
    assert sum(e.stop is not None for e in events) == 4 * WIDTH


def test_closing_the_iterator_frees_the_slots(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    stream = policy.generate([calculated(prompt, s, LONG) for s in range(2 * WIDTH)])
    next(stream)
    stream.close()
    begun = time.monotonic()
    (event,) = policy.generate([calculated(prompt, 0, GREEDY, max_steps=1)])
    assert event.stop in ("step", "end")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("beside_another", [False, True])
def test_cancelling_gives_up_a_long_prompts_batch(pack: Pack, beside_another: bool) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=4, context=1024, micro_batch=512))
    tokens = policy.tokenize(" ".join(f"{i} apples and" for i in range(200)))[:500]
    waits, others = [], 0
    for trial in range(5):
        stream = policy.generate([Request(policy.tokenize("Count: 1 2"), trial, LONG)]) if beside_another else None
        other = threading.Thread(target=lambda stream=stream: list(stream or ()))
        other.start()
        cancel = Cancellation()
        caller = threading.Thread(
            target=lambda c=cancel, t=trial: list(policy.generate([Request(tokens[t:], 0)], None, c))
        )
        caller.start()
        while not any(len(tokens) // 2 < count for count, _ in policy._evaluating):
            time.sleep(0.001)
        begun = time.monotonic()
        cancel.request()
        caller.join()
        while any(job.call.cancelled for _, jobs in policy._evaluating for job in jobs):
            time.sleep(0.001)
        waits.append(time.monotonic() - begun)
        others += beside_another and bool(policy._streams.running)
        other.join(60)
        assert not other.is_alive()
    policy.close()
    # A busy machine may leave any thread waiting for longer now and then.
    assert statistics.median(waits) < 0.1
    assert others == 5 * beside_another


def test_cancelling_ends_a_call_that_waits_for_its_turn(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    crowd = policy.generate([calculated(prompt, s, LONG) for s in range(WIDTH)])
    next(crowd)
    cancel = Cancellation()
    timer = threading.Timer(0.05, cancel.request)
    timer.start()
    begun = time.monotonic()
    assert list(policy.generate([calculated(prompt[:-1], 0, LONG)], None, cancel)) == []
    assert time.monotonic() - begun < 0.3
    crowd.close()
    assert list(policy.generate([calculated(prompt, 0, GREEDY)], None, cancel)) == []


def test_length_limit_and_context_limit(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    events = list(policy.generate([calculated(prompt, 0, replace(LONG, max_tokens=10))]))
    assert events[-1].stop == "length"
    assert 10 <= sum(len(e.tokens) for e in events) <= 10 + 16
    events = list(policy.generate([calculated(prompt, 0, replace(LONG, max_tokens=10_000))]))
    assert events[-1].stop == "length"
    assert len(prompt) + sum(len(e.tokens) for e in events) <= policy.info.context_length + 16


def test_a_prompt_longer_than_the_context_is_refused(policy: LlamaPolicy, prompt: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="does not fit the context of 320"):
        next(policy.generate([calculated(prompt * 10, 0)]))


def test_quantised_kv_and_unusual_widths(pack: Pack) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=3, context=256, kv_type="q8_0"))
    try:
        tokens = policy.tokenize(PromptFormat().render(QUESTION), special=True)
        events = list(policy.generate([Request(tokens, s, Sampling()) for s in range(5)]))
        assert sum(e.stop is not None for e in events) == 5
    finally:
        policy.close()


def test_closed_policy_refuses_work_and_closes_twice(pack: Pack) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=1, context=256))
    tokens = policy.tokenize("1+1=")
    policy.close()
    policy.close()
    with pytest.raises(BackendError, match="closed"):
        next(policy.generate([Request(tokens, 0)]))
    with pytest.raises(BackendError, match="closed"):
        policy.tokenize("1+1=")  # which would read freed memory


def test_close_ends_a_call_under_way(pack: Pack) -> None:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=2, context=256))
    stream = policy.generate([Request(policy.tokenize("Count: 1 2 3"), s, LONG) for s in range(4)])
    threading.Timer(0.3, policy.close).start()
    with pytest.raises(BackendError, match="closed"):
        list(stream)
