"""Calibration: measure how fast a policy and a verifier really are on this device.

It uses the protocols of :mod:`edge_tts.core` alone, so that any backend can be measured. Each point is measured for
a fixed time after a warm-up, so that a calibration takes as long on a slow device as on a fast one. A point is the
number of tokens finished in that time, with freed sequences refilled.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    Verifier,
)
from edge_tts.errors import BackendError
from edge_tts.profiles.loader import Calibration, DecodeSpeed, Speeds
from edge_tts.runtimes.config import EngineConfig

WIDTHS = (1, 4, 8, 16, 32)
WARM_UP_TOKENS = 4
_TEXT = "A baker sells 12 loaves in the morning and 7 more at noon. Each loaf costs 3 dollars. "
_TRACE = ("12+7={0}", "{0}*3={1}", "#### {1}")

Progress = Callable[[str], None]
"""Called with what is about to be measured."""


def calibrate(
    policy_factory: Callable[[EngineConfig], Policy],
    verifier: Verifier | None,
    configs: Sequence[EngineConfig],
    pack: str,
    before: Speeds,
    seconds: float = 3.0,
    progress: Progress = lambda label: None,
) -> Calibration:
    """Measure every configuration in ``configs``, with one policy loaded at a time.

    The verifier's speed is taken from ``before`` where there is no ``verifier``; ``seconds`` is the time for
    one point. Raises BackendError where a policy produces nothing.
    """
    decode: list[DecodeSpeed] = []
    prefill: dict[int, float] = {}
    parameters = 0
    for number, config in enumerate(configs, 1):
        progress(f"decoding {config.width} wide, {config.context} tokens of context ({number} of {len(configs)})")
        with closing(policy_factory(config)) as policy:
            parameters = policy.info.parameters
            prompt = _prompt(policy, config.context // 2)
            decode.append(DecodeSpeed(config.width, len(prompt), _decode_speed(policy, prompt, config, seconds)))
            if config.context not in prefill:  # the width makes no difference to one prompt
                prefill[config.context] = _prefill_speed(policy, prompt, seconds / 3)
    if verifier is not None:
        progress("scoring steps")
        before = replace(
            before, verifier=_verifier_speed(verifier, seconds), verifier_parameters=verifier.info.parameters
        )
    # Other programs only ever slow a measurement down, so the fastest is nearest to the truth.
    speeds = Speeds(parameters, tuple(decode), max(prefill.values()), before.verifier, before.verifier_parameters)
    return Calibration(speeds, datetime.now(UTC).date().isoformat(), machine(), pack)


def machine() -> str:
    """One line that names this machine: system, architecture, processor."""
    return " ".join(dict.fromkeys(filter(None, (platform.system(), platform.machine(), _processor()))))


def _processor() -> str:
    """The processor's name; :mod:`platform` does not know it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _prompt(policy: Policy, length: int) -> tuple[int, ...]:
    """``length`` tokens of plain text."""
    tokens = policy.tokenize(_TEXT)
    return (tokens * (length // len(tokens) + 1))[:length]


def _decode_speed(policy: Policy, prompt: tuple[int, ...], config: EngineConfig, seconds: float) -> float:
    """Tokens/s of all sequences together once the prompt is in the KV cache."""
    # End tokens are ignored: after a text that is no question, a fine-tuned policy may end at once.
    few = Sampling(max_tokens=WARM_UP_TOKENS, ignore_end=True)
    warm_up = [Request(prompt, seed, few) for seed in range(config.width)]
    _run(policy, warm_up, None)
    sampling = Sampling(temperature=1.0, max_tokens=config.context - len(prompt) - 1, ignore_end=True)
    tokens, spent, seed = 0, 0.0, config.width
    while spent < seconds:
        # Four per stream, so that freed streams are refilled as they are in a search.
        requests = [Request(prompt, seed + i, sampling) for i in range(4 * config.width)]
        seed += len(requests)
        done, took = _run(policy, requests, seconds - spent)
        tokens, spent = tokens + done, spent + took
        if not done:
            break  # the time left is too short for one more batch
    if not tokens:  # one tick takes longer than all of ``seconds``
        tokens, spent = _run(policy, warm_up, None)
    if not tokens:
        raise BackendError(f"the policy produced no token in {spent:.1f} s at width {config.width}; see `doctor`")
    return tokens / spent


def _prefill_speed(policy: Policy, prompt: tuple[int, ...], seconds: float) -> float:
    """Prompt tokens/s, over prompts that differ in their first token, so that none is in the KV cache."""
    tokens, spent = 0, 0.0
    for turned in _rotations(prompt):
        begun = time.monotonic()
        for event in policy.generate([Request(turned, 0, Sampling(temperature=0, max_tokens=1))]):
            tokens += event.prefill_tokens
        spent += time.monotonic() - begun
        if spent >= seconds:
            break
    return max(tokens, 1) / spent


def _rotations(prompt: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for i in range(1, len(prompt)):
        yield prompt[i:] + prompt[:i]


def _run(policy: Policy, requests: Sequence[Request], seconds: float | None) -> tuple[int, float]:
    """Tokens evaluated for ``requests`` within ``seconds``, and the seconds it took.

    What the requests begin with alike is evaluated once, and counts once.
    """
    begun = time.monotonic()
    deadline = None if seconds is None else begun + seconds
    events = policy.generate(requests, deadline)
    tokens = sum(event.prefill_tokens + len(event.tokens) - event.shared_tokens for event in events)
    return tokens, time.monotonic() - begun


def _verifier_speed(verifier: Verifier, seconds: float) -> float:
    """Verifier tokens/s over batches of 16 traces, step by step, as a beam search asks for them."""
    verifier.score(_TEXT, [[step.format(0, 1) for step in _TRACE]])
    tokens, spent, count = 0, 0.0, 0
    while spent < seconds:
        traces = [[step.format(count + i, 7 * count + i) for step in _TRACE] for i in range(16)]
        count += len(traces)
        begun = time.monotonic()
        for length in range(1, len(_TRACE) + 1):
            tokens += sum(scored.tokens for scored in verifier.score(_TEXT, [t[:length] for t in traces]))
        spent += time.monotonic() - begun
    return max(tokens, 1) / spent
