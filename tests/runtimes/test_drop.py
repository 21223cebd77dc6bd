"""Requests that are dropped while they run: the others go on, and what the dropped ones cost is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    StepEvent,
)
from edge_tts.packs.pack import Pack
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.isolated import IsolatedModels
from edge_tts.runtimes.loaded import LoadedModels, ModelsConfig
from edge_tts.runtimes.scripted import ScriptedPolicy

WIDTH = 3
LONG = Sampling(temperature=0.8, max_tokens=60, ignore_end=True)


@pytest.fixture(params=["scripted", "llama", "isolated"])
def policy(request: pytest.FixtureRequest, pack: Pack) -> Iterator[Policy]:
    if request.param == "scripted":
        yield ScriptedPolicy(lambda text, seed: "abc\n" * 15, width=WIDTH)
        return
    config = ModelsConfig(pack.policy_path, EngineConfig(WIDTH, 256), None)
    models = IsolatedModels(config) if request.param == "isolated" else LoadedModels(config)
    yield models.policy
    models.close()


def test_a_dropped_request_ends_and_the_others_go_on(policy: Policy) -> None:
    prompt = policy.tokenize("1, 2, 3, 4, 5, ")
    requests = [Request(prompt, seed, LONG, delimiter="\n") for seed in range(WIDTH + 2)]
    events = policy.generate(requests)
    seen: list[StepEvent] = [next(events)]
    while seen[-1].stop is not None:  # one that could still be dropped
        seen.append(next(events))
    dropped = {seen[-1].request, WIDTH + 1}  # one that runs, one that waits
    seen.append(events.send(tuple(dropped)))
    seen += events
    stops = {event.request: event.stop for event in seen if event.stop is not None}
    assert {index for index, stop in stops.items() if stop == "cancelled"} == dropped
    assert {stops[index] for index in set(range(len(requests))) - dropped} <= {"length", "end"}
    produced = {i: sum(len(event.tokens) for event in seen if event.request == i) for i in range(len(requests))}
    assert max(produced[index] for index in dropped) < 60
    assert produced[WIDTH + 1] == 0


def test_a_request_may_have_its_own_delimiter(policy: Policy) -> None:
    prompt = policy.tokenize("1, 2, 3, 4, 5, ")
    whole, cut = (
        [e.text for e in policy.generate([Request(prompt, 3, LONG, delimiter=delimiter)])] for delimiter in ("\v", "c")
    )
    assert len(whole) == 1
    assert "c".join(cut).strip("c") == whole[0].strip("c") or "cc" in whole[0]
