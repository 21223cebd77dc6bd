"""What the scores of a question's samples are worth: telling right from wrong inside a question, and in a vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edge_tts.answers.equivalence import group
from edge_tts.core import Trace
from edge_tts.export.prm_metrics import auc
from edge_tts.search.selection import best_scored, majority, weighted

COUNTS = (4, 8, 16)
ORDERS = 40
"""Random draws of a smaller vote from a question's samples."""
RESAMPLES = 5000


@dataclass(frozen=True)
class Drawn:
    """A sample as a vote sees it."""

    answer: str | None
    """None: it takes part in the draw and casts no vote."""
    right: bool
    score: float
    """In [0, 1]."""
    logprob: float
    """Breaks a tie, as in the runtime."""


def within_question_auc(samples: Sequence[Drawn]) -> float | None:
    """Probability that a right sample outscores a wrong one of the same question; None without one of either."""
    right = np.array([s.score for s in samples if s.answer is not None and s.right])
    wrong = np.array([s.score for s in samples if s.answer is not None and not s.right])
    return auc(right, wrong) if len(right) and len(wrong) else None


def votes(samples: Sequence[Drawn], count: int, seed: int = 0) -> dict[str, float]:
    """How often ``count`` of the samples give a right answer: by ``majority``, ``weighted`` by scores, ``best_of_n``.

    Means over random draws; over all samples in one draw where there are no more than ``count``.
    """
    ids = group([sample.answer or "" for sample in samples])
    traces = [_trace(sample, id) for sample, id in zip(samples, ids, strict=True)]
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(len(samples))[:count] for _ in range(ORDERS if count < len(samples) else 1)]
    right: dict[str, list[bool]] = defaultdict(list)
    for order in orders:
        drawn = [traces[i] for i in order]
        chosen = {"majority": majority(drawn), "weighted": weighted(drawn, "last")}
        for way, choice in {**chosen, "best_of_n": best_scored(drawn, "last")}.items():
            right[way].append(any(traces[i] is choice.best and samples[i].right for i in order))
    return {way: float(np.mean(found)) for way, found in right.items()}


def _trace(sample: Drawn, id: int) -> Trace:
    """``sample`` as the runtime's votes take it; ``id`` is that of its group of equivalent answers."""
    answered = sample.answer is not None
    scores = (sample.score,)
    return Trace((), finished=answered, answer=sample.answer, scores=scores, logprob=sample.logprob, vote=str(id))


def interval(values: ArrayLike) -> dict[str, float]:
    """Mean of one number for each question, with a 95% bootstrap interval over questions, and their number."""
    found = np.asarray(values, np.float64)
    if not len(found):
        return {"questions": 0}
    drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
    low, high = np.quantile(found[drawn].mean(axis=1), (0.025, 0.975))
    named = {"value": found.mean(), "low": low, "high": high}
    return {"questions": len(found), **{name: round(float(value), 4) for name, value in named.items()}}


def calibration_error(samples: Sequence[Drawn], bins: int = 10) -> float:
    """Expected calibration error of the scores of samples with an answer (Guo et al. 2017)."""
    answered = [sample for sample in samples if sample.answer is not None]
    scores, right = np.array([s.score for s in answered]), np.array([s.right for s in answered])
    inside = np.minimum(bins - 1, (scores * bins).astype(int))
    gaps = [abs(scores[inside == b].sum() - right[inside == b].sum()) for b in range(bins)]
    return float(sum(gaps) / max(1, len(answered)))


def worth(questions: Sequence[Sequence[Drawn]], counts: Sequence[int] = COUNTS) -> dict[str, object]:
    """Everything above for one policy's samples, as plain JSON types."""
    everything = [sample for samples in questions for sample in samples if sample.answer is not None]
    right, wrong = (np.array([s.score for s in everything if s.right is side]) for side in (True, False))
    inside = [found for found in map(within_question_auc, questions) if found is not None]
    by_count: dict[str, object] = {}
    for count in counts:
        ways = [votes(samples, count) for samples in questions]
        gain = {way: interval([v[way] - v["majority"] for v in ways]) for way in ("weighted", "best_of_n")}
        by_count[str(count)] = {
            "majority": interval([v["majority"] for v in ways]),
            **{f"{way}_less_majority": found for way, found in gain.items()},
        }
    return {
        "auc_within_a_question": interval(inside),
        "auc": round(auc(right, wrong), 4),
        "calibration_error": round(calibration_error(everything), 4),
        "votes": by_count,
    }
