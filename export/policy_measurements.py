"""What quantising a policy lost: every rung of a ladder against its F16, measured on this machine.

Distributions are compared on a text of the user's choice, answers on problems of the user's choice.
Nothing is estimated: what was not measured is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import Request, Sampling, Trace
from edge_tts.errors import InputError, ResourceError
from edge_tts.files.atomic import Progress, silent
from edge_tts.planning.calibration import calibrate
from edge_tts.planning.planner import make_plan
from edge_tts.planning.shapes import policy_shape
from edge_tts.profiles.loader import Profile, detect
from edge_tts.questions.reading import Question
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
from edge_tts.runtimes.llama_native import NativeModel

WINDOWS = 16
"""Pieces of the text that are evaluated in one batch."""
LONGEST_WINDOW = 256
WIDTHS = (1, 8, 32)
SOUND_KL = 0.1
"""Mean KL divergence from F16, in nats, up to which a rung is recommended."""


@dataclass(frozen=True)
class Fidelity:
    """Next-token distributions of a rung against those of F16, over the same text."""

    tokens: int
    perplexity: float
    mean_kl: float
    """KL(F16 || rung), nats a token; 0 for F16 itself."""
    top1_agreement: float
    """Share of tokens where both rank the same token first."""


@dataclass(frozen=True)
class Accuracy:
    """Problems answered right by greedy decoding."""

    right: int
    problems: int
    interval95: tuple[float, float]


@dataclass(frozen=True)
class Rung:
    """One quantisation and what was measured of it."""

    name: str
    bytes: int
    fidelity: Fidelity | None
    """None where no text was given."""
    accuracy: Accuracy | None
    """None where no problems were given."""
    tokens_per_s: Mapping[int, float]
    """Decoding speed of all sequences together, by width."""


@dataclass(frozen=True)
class LadderMeasurements:
    """What was measured of a ladder's rungs, F16 first, and which one is recommended for a device."""

    rungs: tuple[Rung, ...]
    profile: str
    recommended: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """Problems and how a policy is asked them."""

    problems: Sequence[Question]
    prompts: PromptFormat
    calculator: CalculatorFormat | None
    max_tokens: int = 200


def measure_ladder(
    files: Mapping[str, Path],
    profile: Profile,
    text: str | None,
    task: Task | None,
    seconds: float = 2.0,
    progress: Progress = silent,
) -> LadderMeasurements:
    """Measure every rung in ``files`` (name to GGUF, F16 first); ``seconds`` is the time spent on each speed.

    Raises InputError for a text that is too short, ResourceError where no rung fits the profile.
    """
    reference = next(iter(files.values()))
    rungs = []
    for index, (name, path) in enumerate(files.items()):
        at = index / len(files)
        fidelity = accuracy = None
        if text is not None:
            progress(at, f"{name}: comparing distributions")
            fidelity = compare(reference, path, text)
        if task is not None:
            progress(at, f"{name}: answering {len(task.problems)} problems")
            accuracy = answer(path, task)
        progress(at, f"{name}: measuring speed")
        rungs.append(Rung(name, path.stat().st_size, fidelity, accuracy, speeds(path, seconds)))
    recommended, reason = recommend(rungs, files, profile)
    return LadderMeasurements(tuple(rungs), profile.name, recommended, reason)


def compare(reference: Path, rung: Path, text: str) -> Fidelity:
    """Compare both models' distributions on windows of ``text``, position by position, so that no logits are kept."""
    probe = NativeModel(reference, EngineConfig(width=1, context=64))
    tokens = np.array(probe.tokenize(text))
    probe.close()
    length = min(LONGEST_WINDOW, len(tokens) // WINDOWS)
    if length < 8:
        raise InputError(f"the text has {len(tokens)} tokens; at least {8 * WINDOWS} are needed")
    windows = tokens[: WINDOWS * length].reshape(WINDOWS, length)
    config = EngineConfig(width=WINDOWS, context=length)
    models = [NativeModel(path, config) for path in dict.fromkeys((reference, rung))]
    surprise, divergence, agreed = 0.0, 0.0, 0
    try:
        for position in range(length - 1):
            rows = [(int(windows[s, position]), position, s, True) for s in range(WINDOWS)]
            logs = [log_softmax(model.decode(rows)) for model in models]
            wanted, got = logs[0], logs[-1]
            surprise -= float(got[np.arange(WINDOWS), windows[:, position + 1]].sum())
            divergence += float((np.exp(wanted) * (wanted - got)).sum())
            agreed += int((wanted.argmax(axis=1) == got.argmax(axis=1)).sum())
    finally:
        for model in models:
            model.close()
    count = WINDOWS * (length - 1)
    return Fidelity(count, math.exp(surprise / count), divergence / count, agreed / count)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities of each row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def answer(path: Path, task: Task) -> Accuracy:
    """Greedy answers to all problems, decoded together."""
    rendered = [task.prompts.render(problem.question) for problem in task.problems]
    longest = max(len(text.encode()) for text in rendered) // 3 + 16
    config = EngineConfig(width=min(16, len(rendered)), context=longest + task.max_tokens)
    policy = LlamaPolicy(path, config)
    try:
        traces = [Trace(policy.tokenize(text, special=True)) for text in rendered]
        sampling = Sampling(temperature=0, max_tokens=task.max_tokens)
        writes = task.calculator.written if task.calculator else None
        requests = [
            Request(trace.tokens, 0, sampling, delimiter=task.prompts.step_delimiter, writes=writes) for trace in traces
        ]
        for event in policy.generate(requests):
            trace = traces[event.request]
            if not trace.finished:
                traces[event.request] = trace.extended(event, task.prompts.answer_marker)
    finally:
        policy.close()
    pairs = zip(traces, task.problems, strict=True)
    right = sum(problem.answer is not None and is_correct(trace.answer, problem.answer) for trace, problem in pairs)
    low, high = binomtest(right, len(traces)).proportion_ci(method="wilson")
    return Accuracy(right, len(traces), (round(low, 4), round(high, 4)))


def speeds(path: Path, seconds: float) -> dict[int, float]:
    """Tokens/s at each of ``WIDTHS``, in a new process: OpenMP threads of PyTorch would slow llama.cpp down."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_speeds, path, seconds).result()


def _speeds(path: Path, seconds: float) -> dict[int, float]:
    configs = [EngineConfig(width=width, context=256) for width in WIDTHS]
    measured = calibrate(
        lambda config: LlamaPolicy(path, config), None, configs, path.name, detect()[0].speeds, seconds
    )
    return {point.width: round(point.tokens_per_s, 1) for point in measured.speeds.decode}


def recommend(rungs: Sequence[Rung], files: Mapping[str, Path], profile: Profile) -> tuple[str, str]:
    """The fastest rung that fits ``profile`` and is as good as F16 in whatever was measured, and the reason."""
    fitting, reasons = [], []
    for rung in rungs:
        try:
            make_plan(policy_shape(files[rung.name]), None, profile)
            fitting.append(rung)
        except ResourceError as error:
            reasons.append(f"{rung.name}: {error}")
    if not fitting:
        raise ResourceError(f"no rung fits the profile {profile.name} ({reasons[-1]}); try a smaller quantisation")
    sound = [rung for rung in fitting if is_sound(rung, rungs[0])]
    # Width 8: what a handful of samples uses on any device.
    best = max(sound or fitting, key=lambda rung: (rung.tokens_per_s[8], -rung.bytes))
    if not sound:
        best = min(fitting, key=lambda rung: rung.fidelity.mean_kl if rung.fidelity else -rung.bytes)
        return best.name, f"no rung that fits {profile.name} is as good as {rungs[0].name}; this one is nearest"
    unmeasured = "" if best.fidelity or best.accuracy else "; its quality was not measured: give a text or problems"
    speed = f"{best.tokens_per_s[8]:.0f} tokens/s at width 8"
    return best.name, f"the fastest that fits {profile.name} and is as good as {rungs[0].name} ({speed}){unmeasured}"


def is_sound(rung: Rung, reference: Rung) -> bool:
    """Whether no measurement shows the rung to be worse than F16."""
    near = rung.fidelity is None or rung.fidelity.mean_kl <= SOUND_KL
    if rung.accuracy is None or reference.accuracy is None:
        return near
    return near and rung.accuracy.interval95[1] >= reference.accuracy.right / reference.accuracy.problems
