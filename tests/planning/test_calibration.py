"""Calibration over the protocols alone, with a policy and a verifier that follow a script."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from edge_tts.core import Request, StepEvent
from edge_tts.errors import BackendError
from edge_tts.planning.calibration import calibrate
from edge_tts.profiles.loader import DecodeSpeed, Speeds
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier

BEFORE = Speeds(1, (DecodeSpeed(1, 1, 1.0),), 1.0, 99.0, 77)
CONFIGS = [EngineConfig(width=1, context=64), EngineConfig(width=4, context=64)]


def continuing(text: str, seed: int) -> str:
    time.sleep(0.002)
    return "one\ntwo\n"


def test_every_point_is_measured_and_every_policy_closed() -> None:
    opened: list[ScriptedPolicy] = []
    closed: list[ScriptedPolicy] = []
    seen: list[str] = []

    class Watched(ScriptedPolicy):
        def close(self) -> None:
            closed.append(self)
            super().close()

    def factory(config: EngineConfig) -> ScriptedPolicy:
        opened.append(Watched(continuing, width=config.width, context_length=config.context))
        return opened[-1]

    def score(question: str, steps: object) -> list[float]:
        return [0.5] * len(list(steps))  # type: ignore[call-overload]

    verifier = ScriptedVerifier(score)
    found = calibrate(factory, verifier, CONFIGS, "pack 1", BEFORE, seconds=0.05, progress=seen.append)
    assert [(p.width, p.context) for p in found.speeds.decode] == [(1, 32), (4, 32)]
    assert all(0 < p.tokens_per_s < 1e6 for p in found.speeds.decode)
    assert found.speeds.prefill > 0
    assert found.speeds.verifier != 99.0
    assert found.speeds.verifier_parameters == verifier.info.parameters
    assert found.speeds.parameters == 1000
    assert found.pack == "pack 1"
    assert found.machine
    assert closed == opened
    assert len(seen) == 3


def test_without_a_verifier_its_speed_is_kept() -> None:
    found = calibrate(lambda c: ScriptedPolicy(continuing, width=c.width), None, CONFIGS[:1], "p", BEFORE, seconds=0.02)
    assert (found.speeds.verifier, found.speeds.verifier_parameters) == (99.0, 77)


def test_an_interrupt_closes_the_policy() -> None:
    closed = []

    class Interrupted(ScriptedPolicy):
        def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(self)

    with pytest.raises(KeyboardInterrupt):
        calibrate(lambda c: Interrupted(continuing), None, CONFIGS, "p", BEFORE)
    assert len(closed) == 1


def test_a_policy_that_would_end_at_once_is_measured() -> None:
    class Ending(ScriptedPolicy):
        def generate(self, requests, deadline=None, cancel=None):  # type: ignore[no-untyped-def]
            going_on = all(r.sampling.ignore_end or r.sampling.max_tokens == 1 for r in requests)
            return super().generate(requests, deadline, cancel) if going_on else iter(())

    found = calibrate(lambda c: Ending(continuing, width=c.width), None, CONFIGS[:1], "p", BEFORE, seconds=0.02)
    assert found.speeds.decode[0].tokens_per_s > 0


def test_a_policy_too_slow_for_the_time_is_measured() -> None:
    class Slow(ScriptedPolicy):
        def generate(self, requests, deadline=None, cancel=None):  # type: ignore[no-untyped-def]
            return super().generate(requests, deadline, cancel) if deadline is None else iter(())

    found = calibrate(lambda c: Slow(continuing, width=c.width), None, CONFIGS[:1], "p", BEFORE, seconds=0.02)
    assert found.speeds.decode[0].tokens_per_s > 0


def test_a_policy_that_says_nothing_is_an_error() -> None:
    class Silent(ScriptedPolicy):
        def generate(self, requests, deadline=None):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(BackendError, match="no token"):
        calibrate(lambda c: Silent(continuing), None, CONFIGS, "p", BEFORE)


def test_a_rest_of_time_too_short_for_a_batch_ends_the_measurement() -> None:
    class Refusing(ScriptedPolicy):
        timed = 0

        def generate(self, requests: Sequence[Request], deadline: float | None = None) -> Iterator[StepEvent]:
            self.timed += deadline is not None
            return super().generate(requests) if self.timed < 2 else iter(())

    found = calibrate(lambda c: Refusing(continuing, width=c.width), None, CONFIGS[:1], "p", BEFORE, seconds=60)
    assert found.speeds.decode[0].tokens_per_s > 0
