"""The planner: what fits a memory cap and a deadline, decided from the models' sizes before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from edge_tts.errors import InputError, ResourceError
from edge_tts.planning.memory import STREAM_CELLS, TRACE_TOKENS, MemoryPlan, cache_for, memory_plan
from edge_tts.profiles.loader import Profile, without_gpu
from edge_tts.runtimes.config import EngineConfig, PolicyShape, VerifierConfig, VerifierShape

PROMPT_TOKENS = 120
"""A grade-school question with its template; a plan never makes room for less."""
LONGEST_TRACE = 200
"""New tokens a stream should have room for, where nothing else is said; it must have room for half of them."""
TYPICAL_SHARE = TRACE_TOKENS / LONGEST_TRACE
"""Typical length of a trace in parts of the longest, where nothing else is said."""
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of sequences that are tried, besides the number of generations itself."""
LEAST_GOOD_WIDTH = 4
"""Narrower than this, batching gains little; a smaller KV type and context are tried first."""
ONE_THREAD_VERIFIER = 50_000_000
"""Up to this many weights, a pass is so short that waking a second thread costs more than it saves."""
PASS_TOKENS, SMALL_PASS_TOKENS = 64, 48
"""Least new tokens of a verifier's pass, from ``LEAST_GOOD_WIDTH`` sequences on and below."""
CANCEL_SECONDS = 0.2
"""Longest micro-batch: work is cancelled between them."""
_MICRO_BATCHES = (512, 256, 128, 64, 32)


@dataclass(frozen=True)
class Plan:
    """A configuration that fits, what it will take, and what had to be given up for it."""

    profile: str
    engine: EngineConfig
    verifier: bool
    """False where the pack has none, or where the cap leaves no room for it."""
    verifier_config: VerifierConfig
    """How to run the verifier, where there is one."""
    memory: MemoryPlan
    memory_cap_mb: float
    gpu_cap_mb: float | None
    """Cap on what a GPU with memory of its own holds; None where there is none."""
    generations: int
    """Traces that fit the deadline, at most those asked for."""
    deadline_s: float
    seconds: float
    """Predicted time of one answer."""
    joules: float
    """Predicted time at the profile's power."""
    tokens_per_second: float
    """Predicted speed of decoding, all sequences together."""
    speeds: str
    """Where the speeds behind the prediction come from."""
    notes: tuple[str, ...]
    """One clause for each concession."""
    verifier_needs_mb: int | None
    """Smallest memory cap, in MiB, that leaves room for the verifier; None where there is none."""

    def summary(self) -> str:
        """One line: the configuration, its memory and its predicted time."""
        return (
            f"plan: {self.engine.width} sequences of {self.engine.context} tokens, {self.engine.kv_type} KV cache, "
            f"{self.memory.total:.0f} of {self.memory_cap_mb:g} MB; {self.generations} samples in about "
            f"{self.seconds:.1f} s of {self.deadline_s:g} s"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; memory in MiB."""
        data = asdict(self)
        data["memory"] = self.memory.to_dict()
        data["notes"] = list(self.notes)
        for key, digits in (("seconds", 3), ("joules", 2), ("tokens_per_second", 1)):
            data[key] = round(data[key], digits)
        return data


@dataclass(frozen=True)
class _Candidate:
    engine: EngineConfig
    verifier: bool
    verifier_config: VerifierConfig
    memory: MemoryPlan


def make_plan(
    policy: PolicyShape,
    verifier: VerifierShape | None,
    profile: Profile,
    memory_mb: float | None = None,
    deadline_s: float | None = None,
    generations: int = 16,
    prompt_tokens: int | None = None,
    trace_tokens: int = LONGEST_TRACE,
    typical_tokens: int | None = None,
) -> Plan:
    """Choose the best configuration for a policy and a verifier on a device.

    ``memory_mb`` (MiB of peak resident memory) and ``deadline_s`` (seconds for one answer) override
    the profile's. ``prompt_tokens`` makes room for longer questions than usual. ``trace_tokens`` are the most
    new tokens of one trace, and ``typical_tokens`` what one usually has (None: a quarter of that): they say
    how long the KV streams are and how long an answer takes. Where the cap is tight, width is given up first
    (down to 4), then the KV cache's precision, then spare context, then the rest of the width, and the
    verifier last. Where the deadline is tight, generations are. A model that the GPU has no room for goes to the CPU.

    Raises InputError for a limit that is not above 0 or a prompt beyond the policy's context,
    ResourceError where nothing fits.
    """
    cap = _positive("memory cap", profile.memory_mb if memory_mb is None else memory_mb, "MB")
    deadline = _positive("deadline", profile.deadline_s if deadline_s is None else deadline_s, "seconds")
    prompt = max(PROMPT_TOKENS, int(_positive("prompt", prompt_tokens or PROMPT_TOKENS, "tokens")))
    asked = int(_positive("number of generations", generations, "generations"))
    longest = int(_positive("length of a trace", trace_tokens, "tokens"))
    typical = min(longest, typical_tokens or math.ceil(longest * TYPICAL_SHARE))
    contexts = _contexts(policy, prompt, longest)
    candidates = list(_candidates(policy, verifier, profile, asked, contexts, typical))
    gpu_cap = profile.gpu_memory_mb if profile.gpu else None
    on_gpu = [c for c in candidates if c.memory.gpu <= (gpu_cap or math.inf)]
    if not on_gpu:
        rest = (memory_mb, deadline_s, generations, prompt_tokens, trace_tokens, typical_tokens)
        plan = make_plan(policy, verifier, without_gpu(profile), *rest)
        return replace(plan, notes=(_too_small_a_gpu(gpu_cap or math.inf, candidates), *plan.notes))
    fitting = next((c for c in on_gpu if c.memory.total <= cap), None)
    if fitting is None:
        raise _too_small(cap, on_gpu)
    on_gpu_too = f" and {gpu_cap:g} MB of the GPU" if gpu_cap else ""
    with_verifier = [c.memory.total for c in on_gpu if c.verifier]
    least = math.ceil(min(with_verifier)) if with_verifier else None
    notes = _memory_notes(candidates[0], fitting, f"{cap:g} MB{on_gpu_too}", least)
    width = fitting.engine.width

    def seconds(count: int) -> float:
        return _predicted(policy, verifier, profile, fitting, min(width, count), count, prompt, typical)

    possible = next((g for g in range(asked, 1, -1) if seconds(g) <= deadline), 1)
    if possible < asked:
        notes.append(f"{possible} of {asked} generations: more would pass the deadline of {deadline:g} s")
    if seconds(possible) > deadline:
        notes.append(f"one generation takes about {seconds(1):.2f} s, longer than the deadline of {deadline:g} s")
    known = profile.calibration
    return Plan(
        profile=profile.name,
        engine=fitting.engine,
        verifier=fitting.verifier,
        verifier_config=fitting.verifier_config,
        memory=fitting.memory,
        memory_cap_mb=cap,
        gpu_cap_mb=gpu_cap,
        generations=possible,
        deadline_s=deadline,
        seconds=seconds(possible),
        joules=seconds(possible) * profile.watts,
        tokens_per_second=profile.speeds.decode_at(width, prompt + typical, policy.parameters),
        speeds=f"measured here on {known.date} with {known.pack}" if known else "stated by the profile, not measured",
        notes=tuple(notes),
        verifier_needs_mb=least,
    )


def _positive(what: str, value: float, unit: str) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"the {what} must be above 0 {unit}, not {value:g}; give a larger one")
    return value


def _contexts(policy: PolicyShape, prompt: int, trace: int) -> list[int]:
    """Stream lengths to try, the wanted one first; llama.cpp rounds them, so nothing between is worth trying."""
    longest, needed = policy.trained_context, math.ceil(trace / 2)
    if prompt + needed > longest:
        raise InputError(
            f"a prompt of {prompt} tokens and an answer of {needed} do not fit the policy's context of {longest}; "
            "shorten the question"
        )
    wanted = [math.ceil((prompt + room) / STREAM_CELLS) * STREAM_CELLS for room in (trace, needed)]
    return list(dict.fromkeys(min(context, longest) for context in wanted))


def _verifier_config(verifier: VerifierShape, profile: Profile, width: int, trace: int) -> VerifierConfig:
    """How to run ``verifier`` over traces of about ``trace`` tokens of ``width`` sequences."""
    small = width <= LEAST_GOOD_WIDTH
    # A pass takes a whole trace, or half of one where memory is short: fewer passes copy fewer keys and values.
    config = VerifierConfig(
        pass_tokens=max(SMALL_PASS_TOKENS, trace // 2) if small else max(PASS_TOKENS, trace),
        threads=1 if verifier.parameters <= ONE_THREAD_VERIFIER else profile.threads,
    )
    return cache_for(verifier, config, width, trace)


def _candidates(
    policy: PolicyShape,
    verifier: VerifierShape | None,
    profile: Profile,
    generations: int,
    contexts: list[int],
    trace: int,
) -> Iterator[_Candidate]:
    """Configurations to try, from the one wanted to the smallest."""
    wide, narrow = _widths(policy, profile, generations, contexts[0])
    kv_types: tuple[Literal["f16", "q8_0"], ...] = ("f16", "q8_0")
    prefill = profile.speeds.prefill_at(policy.parameters)
    micro_batch = next((m for m in _MICRO_BATCHES if m <= CANCEL_SECONDS * prefill), _MICRO_BATCHES[-1])
    for shape in (verifier, None) if verifier else (None,):
        for widths in (wide, narrow):
            for context in contexts:
                for kv_type in kv_types:
                    for width in widths:
                        config = _verifier_config(shape, profile, width, trace) if shape else VerifierConfig()
                        engine = EngineConfig(
                            width, context, kv_type, micro_batch, profile.threads, None if profile.gpu else 0
                        )
                        offloaded = profile.gpu and profile.gpu_memory_mb is not None
                        memory = memory_plan(policy, shape, engine, config, trace, offloaded)
                        yield _Candidate(engine, shape is not None, config, memory)


def _widths(policy: PolicyShape, profile: Profile, generations: int, context: int) -> tuple[list[int], list[int]]:
    """Widths to try, falling from the fastest one that ``generations`` can fill (the narrowest of equals).

    Split where batching begins to gain little.
    """
    most = min(generations, WIDTHS[-1])
    possible = [*(w for w in WIDTHS if w < most), most]
    fastest = max(possible, key=lambda w: (profile.speeds.decode_at(w, context, policy.parameters), -w))
    falling = [w for w in reversed(possible) if w <= fastest]
    least = min(LEAST_GOOD_WIDTH, fastest)
    return [w for w in falling if w >= least], [w for w in falling if w < least]


def _predicted(
    policy: PolicyShape,
    verifier: VerifierShape | None,
    profile: Profile,
    chosen: _Candidate,
    width: int,
    generations: int,
    prompt: int,
    trace: int,
) -> float:
    """Seconds for one prompt and ``generations`` traces, each of whose tokens the verifier reads once."""
    speeds = profile.speeds
    new = generations * trace
    decode = speeds.decode_at(width, prompt + trace, policy.parameters)
    scoring = (prompt + new) / speeds.verifier_at(verifier.parameters) if verifier and chosen.verifier else 0.0
    return prompt / speeds.prefill_at(policy.parameters) + new / decode + scoring


def _memory_notes(wanted: _Candidate, chosen: _Candidate, cap: str, least: int | None) -> list[str]:
    """``least`` is the cap that leaves room for the verifier."""
    cause = f"to stay below {cap}"
    notes = []
    if chosen.engine.width < wanted.engine.width:
        notes.append(f"{chosen.engine.width} sequences together instead of {wanted.engine.width}, {cause}")
    if chosen.engine.kv_type != wanted.engine.kv_type:
        notes.append(f"the KV cache in {chosen.engine.kv_type} instead of {wanted.engine.kv_type}, {cause}")
    if chosen.engine.context < wanted.engine.context:
        notes.append(f"{chosen.engine.context} tokens of context instead of {wanted.engine.context}, {cause}")
    if wanted.verifier and not chosen.verifier:
        notes.append(f"no verifier, which needs a cap of {least} MB, {cause}: answers are chosen by majority")
    return notes


def _too_small(cap: float, candidates: list[_Candidate]) -> ResourceError:
    least = min(candidates, key=lambda c: c.memory.total)
    needed = math.ceil(least.memory.total)
    return ResourceError(
        f"a memory cap of {cap:g} MB is {math.ceil(needed - cap)} MB too small: the smallest configuration "
        f"(width {least.engine.width}, {least.engine.context} tokens, {least.engine.kv_type}) needs {needed} MB; "
        f"allow at least {needed} MB"
    )


def _too_small_a_gpu(cap: float, candidates: list[_Candidate]) -> str:
    needed = math.ceil(min(candidate.memory.gpu for candidate in candidates))
    return f"on the CPU: the model needs {needed} MB of the GPU, which has {cap:g} MB for it"
