"""What exporting and quantising a reward model lost, as measured, and whether that is too much.

Scores are compared with PyTorch's in float32, on traces of the user's choice. What needs labels or answers is
measured only where the traces have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from edge_tts.core import Verifier
from edge_tts.errors import InputError
from edge_tts.export.prm_cost import Cost
from edge_tts.export.prm_graph import RewardModel
from edge_tts.export.prm_metrics import f1, selection
from edge_tts.export.trace_rows import Row
from edge_tts.runtimes.step_layout import StepEncoder

ERROR_BELOW = 0.5
"""A step that scores (or is labelled) less than this counts as an error."""


@dataclass(frozen=True)
class Thresholds:
    """What an exported model has to reach to be called good; losses are against PyTorch."""

    min_spearman: float = 0.98
    max_mean_error: float = 0.05
    max_f1_loss: float = 0.02
    """Of step-error F1."""
    max_accuracy_loss: float = 0.02
    """Of best-of-N accuracy."""


@dataclass(frozen=True)
class Parity:
    """Step scores of the exported model against PyTorch's."""

    steps: int
    """Distinct ones: a step that several traces share counts once."""
    max_error: float
    mean_error: float
    spearman: float
    """Rank correlation; 0 where one side gives all steps the same score and the other does not."""


@dataclass(frozen=True)
class Quality:
    """How useful the scores are; None where the traces have no labels or answers to tell."""

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
class PrmMeasurements:
    """What was measured of an exported reward model."""

    quant: str
    bytes: int
    """Of the model's files together."""
    head: str
    """The reward head that was recognised, and from what."""
    comparison: Comparison | None
    """None where there were no traces to compare on."""
    costs: tuple[Cost, ...]
    thresholds: Thresholds
    forced: bool
    """True if the model was written although it missed a threshold."""

    @property
    def good(self) -> bool:
        """Measured, and within all thresholds."""
        return self.comparison is not None and not self.comparison.failures

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"good": self.good, **asdict(self)}


@torch.no_grad()
def torch_scores(model: RewardModel, encoder: StepEncoder, rows: Sequence[Row]) -> list[list[float]]:
    """PyTorch's scores of every row's steps, as far as they fit the positions; neither cached nor padded."""
    return [_trace_scores(model, encoder, row) for row in rows]


def _trace_scores(model: RewardModel, encoder: StepEncoder, row: Row) -> list[float]:
    prefixes = encoder.prefixes(row.question, row.steps)
    whole = _token_scores(model, prefixes[-1])
    scores = []
    for ids in prefixes[1:]:
        # Where a token spans the border between two steps, the prefix is tokenised differently than the whole.
        continued = prefixes[-1][: len(ids)] == ids
        scores.append(float((whole if continued else _token_scores(model, ids))[len(ids) - 1]))
    return scores


def _token_scores(model: RewardModel, ids: Sequence[int]) -> torch.Tensor:
    tokens = torch.tensor([ids])
    scores: torch.Tensor = model(tokens, torch.ones_like(tokens), torch.arange(len(ids))[None])["scores"][0]
    return scores


def exported_scores(verifier: Verifier, rows: Sequence[Row]) -> list[list[float]]:
    """The verifier's scores of every row's steps."""
    return [list(verifier.score(row.question, [row.steps])[0].scores) for row in rows]


def parity(rows: Sequence[Row], reference: list[list[float]], exported: list[list[float]]) -> Parity:
    """How the scores in ``exported`` differ from ``reference`` (both have one list for each row)."""
    pairs = {
        (row.question, *row.steps[: n + 1]): both
        for row, wanted, got in zip(rows, reference, exported, strict=True)
        for n, both in enumerate(zip(wanted, got, strict=False))
    }
    if not pairs:
        raise InputError("none of the traces fits the model's positions; give shorter ones")
    wanted, got = np.array(list(pairs.values())).T
    errors = np.abs(wanted - got)
    return Parity(len(pairs), float(errors.max()), float(errors.mean()), _spearman(wanted, got))


def _spearman(first: Any, second: Any) -> float:
    """Rank correlation; where one side is constant, 1 if both are equal and else 0."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float(np.array_equal(first, second))
    return float(spearmanr(first, second).statistic)


def quality(rows: Sequence[Row], scores: list[list[float]]) -> Quality:
    """How useful ``scores`` (one list for each row) are."""
    labelled = [both for row, found in zip(rows, scores, strict=True) for both in zip(found, row.labels, strict=False)]
    found, wrong = np.array(labelled).reshape(-1, 2).T < ERROR_BELOW
    answered = [
        (row.id, row.answer, row.correct, found[-1])
        for row, found in zip(rows, scores, strict=True)
        if row.answer is not None and row.correct is not None and found
    ]
    return Quality(f1(found, wrong) if wrong.any() else None, selection(answered) if answered else None)


def compare(
    rows: Sequence[Row], reference: list[list[float]], exported: list[list[float]], thresholds: Thresholds
) -> Comparison:
    """The comparison of two sets of scores, both with one list for each row."""
    close = parity(rows, reference, exported)
    before, after = quality(rows, reference), quality(rows, exported)
    return Comparison(close, before, after, failures(close, before, after, thresholds))


def failures(parity: Parity, pytorch: Quality, exported: Quality, thresholds: Thresholds) -> tuple[str, ...]:
    """One clause for each threshold that the exported model misses; what was not measured cannot miss."""
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
