"""The figures of a report as plain data: the analysis computes them; the page, plots and CSV files show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Difficulty = Literal["oracle", "predicted"]
"""Oracle: by the share of right samples. Predicted: by the mean verifier score of a few samples."""


@dataclass(frozen=True)
class Share:
    """A measured share with its 95% interval, all in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """Means per problem; verifier and difficulty estimation included."""

    policy_tokens: float
    verifier_tokens: float
    flops: float
    """2 x parameters x tokens, of policy and verifier."""
    seconds: float | None
    """The machine's time; solves that share a batch divide it. None where it is not known, as in a replay."""
    joules: float | None
    """None where there was neither a meter nor a profile's power."""


@dataclass(frozen=True)
class StudyInfo:
    """One study: data, model and machine."""

    name: str
    """Of the data set, with the folder's name where two studies share one."""
    data: str
    policy: str
    """Pack or endpoint model."""
    parameters: int | None
    problems: int
    seeds: int
    machine: str
    device: str
    """"cpu", "cuda" or "endpoint"."""
    energy: str
    """Where joules come from: "rapl", "nvml", "profile estimate" or "not known"."""


@dataclass(frozen=True)
class Point:
    """One strategy at one budget."""

    study: str
    strategy: str
    budget: int
    accuracy: Share
    cost: Cost


@dataclass(frozen=True)
class BinPoint:
    """The same inside one difficulty bin, 0 (easiest) to 4."""

    study: str
    difficulty: Difficulty
    bin: int
    problems: int
    strategy: str
    budget: int
    accuracy: Share


@dataclass(frozen=True)
class RatioPoint:
    """Revision chains: ``sequential`` attempts in each of ``budget / sequential`` parallel chains."""

    study: str
    budget: int
    sequential: int
    bin: int | None
    """None: all problems; otherwise of predicted difficulty, or of oracle where there is none."""
    accuracy: Share


@dataclass(frozen=True)
class OptimalPoint:
    """The allocation chosen per difficulty on one half of the problems, scored on the other half."""

    study: str
    difficulty: Difficulty
    accuracy: Share
    cost: Cost
    """The samples that estimated the difficulty included, for oracle bins too."""
    cells: tuple[str, ...]
    """What each bin, easiest first, gets when all problems are used for choosing: "weighted at 8"."""


@dataclass(frozen=True)
class Saving:
    """How many times more compute ``baseline`` needs for the accuracy of the compute-optimal allocation."""

    study: str
    difficulty: Difficulty
    baseline: str
    accuracy: float
    """Where the factor is read: the baseline's accuracy at its largest budget, or the allocation's best accuracy
    where that is lower."""
    unit: Literal["flops", "policy_tokens", "seconds"]
    optimal_cost: float
    baseline_cost: float
    factor: float
    low: float
    high: float
    """95% interval, paired bootstrap over problems."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of a strategy minus that of a reference on the same problems and budget, 95% paired bootstrap."""

    study: str
    strategy: str
    reference: str
    budget: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Matched:
    """The FLOPs-matched comparison with a model ``times`` larger (Snell et al. 2024, section 7)."""

    study: str
    ratio: float
    """R = D_inference / D_pretraining."""
    larger: str
    """Name of the larger model."""
    times: float
    larger_accuracy: float
    larger_source: str
    """A study of an endpoint, or a citation."""
    allowed: float
    """Inference compute the small model may spend, in times its own single greedy answer."""
    strategy: str
    """What reaches ``accuracy`` within ``allowed``: "compute-optimal" or "weighted at 16"."""
    accuracy: Share
    spent: float
    """In the same unit as ``allowed``."""


@dataclass(frozen=True)
class FrontPoint:
    """One strategy at one budget, alone on the device."""

    study: str
    strategy: str
    budget: int
    accuracy: Share
    """Of the study's shared-batch runs."""
    latency_s: float
    """Median seconds of a lone question."""
    memory_mb: float | None
    """Peak resident memory of a process that only does this; None where it is not known."""
    on_front: bool
    """Whether no other point is at least as good in accuracy, latency and memory."""


@dataclass(frozen=True)
class Published:
    """A published figure, cited."""

    model: str
    parameters: float
    data: str
    accuracy: float
    how: str
    """Shots, sampling."""
    source: str


@dataclass(frozen=True)
class Answer:
    """What the studies of one data set say to one of the report's three questions."""

    data: str
    question: str
    verdict: str
    """One sentence."""
    others: tuple[str, ...]
    """The same of the other models."""


@dataclass(frozen=True)
class Report:
    """All figures of a report; a list is empty where the studies have no data for it."""

    studies: tuple[StudyInfo, ...]
    answers: tuple[Answer, ...]
    """The main data set's first."""
    points: tuple[Point, ...]
    bins: tuple[BinPoint, ...]
    ratios: tuple[RatioPoint, ...]
    optimal: tuple[OptimalPoint, ...]
    savings: tuple[Saving, ...]
    differences: tuple[Difference, ...]
    matched: tuple[Matched, ...]
    front: tuple[FrontPoint, ...]
    published: tuple[Published, ...]
    notes: tuple[str, ...]
    """What is missing and why, one sentence each."""
    bootstrap: Mapping[str, int]
    """Resamples and seed."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)
