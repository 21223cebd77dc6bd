"""The account of an exported reward model: what exporting and quantising it cost, and whether that is too much.

Scores are compared with PyTorch's in float32, on traces of the user's choice; what these traces do
not carry (step labels, answers) is not measured and absent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_tts.core import Verifier
from edge_tts.errors import InputError
from edge_tts.export.prm_cost import Cost
from edge_tts.export.prm_graph import DecoderReward, StepReward
from edge_tts.export.prm_metrics import selection
from edge_tts.runtimes.step_layout import StepEncoder

ERROR_BELOW = 0.5
"""A step that scores (or is labelled) less than this counts as an error."""


@dataclass(frozen=True)
class Sample:
    """One trace to compare scores on."""

    id: str
    """Names the question; traces of one question compete in best-of-N."""
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...] | None = None
    """One for each step, in [0, 1]."""
    answer: str | None = None
    correct: bool | None = None
    """Whether ``answer`` is right; best-of-N needs both."""


@dataclass(frozen=True)
class Thresholds:
    """What an exported model has to reach to be called good."""

    min_spearman: float = 0.98
    max_mean_error: float = 0.05
    max_f1_loss: float = 0.02
    """Of step-error F1, against PyTorch."""
    max_accuracy_loss: float = 0.02
    """Of best-of-N accuracy, against PyTorch."""


@dataclass(frozen=True)
class Parity:
    """Step scores of the exported model against PyTorch's."""

    steps: int
    """Distinct ones: what traces share counts once."""
    max_error: float
    mean_error: float
    spearman: float
    """Rank correlation; 0 where either side gives all steps one score."""


@dataclass(frozen=True)
class Quality:
    """What scores are good for; None where the traces do not tell."""

    step_error_f1: float | None
    """F1 of finding steps labelled as errors."""
    selection: dict[str, float] | None
    """Accuracy of ``best_of_n`` and others, see :func:`edge_tts.export.prm_metrics.selection`."""


@dataclass(frozen=True)
class Comparison:
    """An exported model beside PyTorch, on the same traces."""

    parity: Parity
    pytorch: Quality
    exported: Quality
    failures: tuple[str, ...]
    """One clause for each threshold that was missed."""


@dataclass(frozen=True)
class PrmAccount:
    """What exporting a reward model cost."""

    quant: str
    bytes: int
    """Of the model's files together."""
    head: str
    """What was recognised."""
    comparison: Comparison | None
    """None where there were no traces to compare on."""
    costs: tuple[Cost, ...]
    thresholds: Thresholds
    forced: bool
    """True where the model was written in spite of missed thresholds."""

    @property
    def good(self) -> bool:
        """Measured, and within all thresholds."""
        return self.comparison is not None and not self.comparison.failures

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"good": self.good, **asdict(self)}


def read_samples(path: Path) -> list[Sample]:
    """Traces from JSON lines: question and steps; optional id, labels, answer, correct.

    Raises InputError, with the line, for one that cannot be used.
    """
    samples = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the traces {path} ({error}); give JSON lines with question and steps") from error
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
            steps = tuple(map(str, raw["steps"]))
            labels = tuple(map(float, raw["labels"])) if raw.get("labels") is not None else None
            if not steps or not isinstance(raw["steps"], list):
                raise ValueError("steps must be a list of texts, at least one")
            if labels is not None and (len(labels) != len(steps) or not all(0 <= label <= 1 for label in labels)):
                raise ValueError(f"{len(steps)} steps with labels {labels}; one in [0, 1] per step is needed")
            question = str(raw["question"])
            name = str(raw.get("id", question))
            samples.append(Sample(name, question, steps, labels, raw.get("answer"), raw.get("correct")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not a trace ({error})") from error
    if not samples:
        raise InputError(f"{path} has no traces; give JSON lines with question and steps")
    return samples


@torch.no_grad()
def torch_scores(model: StepReward, encoder: StepEncoder, samples: Sequence[Sample]) -> list[list[float]]:
    """PyTorch's score of every step of every sample that fits the positions, without cache or padding."""
    return [_trace_scores(model, encoder, sample) for sample in samples]


def _trace_scores(model: StepReward, encoder: StepEncoder, sample: Sample) -> list[float]:
    prefixes = encoder.prefixes(sample.question, sample.steps)
    whole = _token_scores(model, prefixes[-1])
    scores = []
    for ids in prefixes[1:]:
        # Where the tokenizer reads across steps, a step's own text is not the beginning of the whole.
        continued = prefixes[-1][: len(ids)] == ids
        scores.append(float((whole if continued else _token_scores(model, ids))[len(ids) - 1]))
    return scores


def _token_scores(model: StepReward, ids: Sequence[int]) -> torch.Tensor:
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if isinstance(model, DecoderReward):
        inputs["position_ids"] = torch.arange(len(ids))[None]
    scores: torch.Tensor = model(**inputs)["scores"][0]
    return scores


def exported_scores(verifier: Verifier, samples: Sequence[Sample]) -> list[list[float]]:
    """The verifier's score of every step of every sample."""
    return [list(verifier.score(sample.question, [sample.steps])[0].scores) for sample in samples]


def parity(
    samples: Sequence[Sample], reference: list[list[float]], exported: list[list[float]], bidirectional: bool = False
) -> Parity:
    """How the scores in ``exported`` differ from ``reference`` (both one list for each sample).

    Steps that several traces share are counted once, unless the model is ``bidirectional``: its score of
    a step depends on what comes after it.
    """
    pairs = {
        (sample.question, *sample.steps[: None if bidirectional else n + 1], n): both
        for sample, wanted, got in zip(samples, reference, exported, strict=True)
        for n, both in enumerate(zip(wanted, got, strict=False))
    }
    if not pairs:
        raise InputError("none of the traces fits the model's positions; give shorter ones")
    wanted, got = np.array(list(pairs.values())).T
    errors = np.abs(wanted - got)
    return Parity(len(pairs), float(errors.max()), float(errors.mean()), spearman(wanted, got))


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Rank correlation with mean ranks for ties; 0 where one side is constant (unless both are the same)."""
    ranks = [_ranks(values) for values in (first, second)]
    if any(np.ptp(side) == 0 for side in ranks):
        return float(np.array_equal(first, second))
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def quality(samples: Sequence[Sample], scores: list[list[float]]) -> Quality:
    """What ``scores`` (one list for each sample) are good for."""
    labelled = [
        (score < ERROR_BELOW, label < ERROR_BELOW)
        for sample, row in zip(samples, scores, strict=True)
        for score, label in zip(row, sample.labels or (), strict=False)
    ]
    hits = sum(found and wrong for found, wrong in labelled)
    counted = sum(found for found, _ in labelled) + sum(wrong for _, wrong in labelled)
    has_errors = any(wrong for _, wrong in labelled)
    answered = [
        (sample.id, sample.answer, sample.correct, row[-1])
        for sample, row in zip(samples, scores, strict=True)
        if sample.answer is not None and sample.correct is not None and row
    ]
    return Quality(2 * hits / counted if has_errors else None, selection(answered) if answered else None)


def compare(
    samples: Sequence[Sample],
    reference: list[list[float]],
    exported: list[list[float]],
    bidirectional: bool,
    thresholds: Thresholds,
) -> Comparison:
    """Everything that two sets of scores (one list for each sample) tell; ``bidirectional`` is as for ``parity``."""
    close = parity(samples, reference, exported, bidirectional)
    before, after = quality(samples, reference), quality(samples, exported)
    return Comparison(close, before, after, failures(close, before, after, thresholds))


def failures(parity: Parity, pytorch: Quality, exported: Quality, thresholds: Thresholds) -> tuple[str, ...]:
    """One clause for each threshold that the exported model misses; what was not measured misses none."""
    found = []
    if not parity.spearman >= thresholds.min_spearman:
        found.append(f"Spearman {parity.spearman:.3f}, at least {thresholds.min_spearman} wanted")
    if not parity.mean_error <= thresholds.max_mean_error:
        found.append(f"mean error {parity.mean_error:.3f}, at most {thresholds.max_mean_error} wanted")
    if pytorch.step_error_f1 is not None and exported.step_error_f1 is not None:
        loss = pytorch.step_error_f1 - exported.step_error_f1
        if loss > thresholds.max_f1_loss:
            found.append(f"step-error F1 falls by {loss:.3f}, at most {thresholds.max_f1_loss} wanted")
    if pytorch.selection is not None and exported.selection is not None:
        loss = pytorch.selection["best_of_n"] - exported.selection["best_of_n"]
        if loss > thresholds.max_accuracy_loss:
            found.append(f"best-of-N accuracy falls by {loss:.3f}, at most {thresholds.max_accuracy_loss} wanted")
    return tuple(found)
