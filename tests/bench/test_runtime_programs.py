"""Shares of processor time: what the search does beside the engine, and what came after a candidate's end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edge_tts.bench import runtime_programs
from edge_tts.core import Budget, Policy, Request, Sampling
from edge_tts.events import StepTaken
from edge_tts.runtimes.scripted import ScriptedPolicy


class Busy:
    """Asks for two texts, works for as long as it is told after every step, and drops the first text at its start."""

    def __init__(self, seconds: float) -> None:
        self.policy: Policy = ScriptedPolicy(lambda text, seed: "a = 1\nb = 2\nc = 3")
        self._seconds = seconds

    def stream(self, question: str, strategy: str, budget: Budget, seed: int, format: str) -> Iterator[StepTaken]:
        assert budget.generations == 2
        requests = [Request((81,), seed + i, Sampling(max_tokens=40)) for i in range(2)]
        events = self.policy.generate(requests)
        event = next(events)
        yield StepTaken(event.request, event.text, True, error="NameError")
        until = time.thread_time() + self._seconds
        while time.thread_time() < until:
            pass
        events.send([event.request])
        yield from (StepTaken(each.request, each.text, False) for each in events)


@pytest.mark.parametrize(("seconds", "low"), [(0.0, 0.0), (0.2, 0.7)])
def test_time_of_the_searching_thread_and_late_tokens_are_counted(seconds: float, low: float) -> None:
    record = runtime_programs.measure(Busy(seconds), ["one", "two"], 2)  # type: ignore[arg-type]
    assert (record["problems"], record["width"], record["programs_ended_by_an_error"]) == (2, 2, 2)
    assert low <= record["search_and_interpreter"]["share"] < 1.01  # two clocks
    assert record["interpreter_process"]["share"] == 0
    assert 0 <= record["tokens_after_the_end"]["share"] < 0.5
