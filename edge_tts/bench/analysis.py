"""From the records of studies to the figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from typing import Any

from edge_tts.bench import published
from edge_tts.bench.alone import front
from edge_tts.bench.figures import (
    BinPoint,
    Cost,
    Difference,
    Difficulty,
    OptimalPoint,
    Point,
    RatioPoint,
    Report,
    Saving,
    StudyInfo,
)
from edge_tts.bench.loading import Array, Cell, Loaded, Solves, load_study
from edge_tts.bench.matched import matched
from edge_tts.bench.optimal import (
    RESAMPLES,
    SEED,
    Curve,
    allocate,
    as_share,
    baseline,
    bins,
    envelope,
    resample,
    saving,
    share,
)
from edge_tts.bench.records import REPLAYED
from edge_tts.bench.study import RUNS
from edge_tts.bench.verdicts import answers
from edge_tts.files.json_lines import read_lines
from edge_tts.search.allocation import BINS
from edge_tts.search.call import AUTO
from edge_tts.search.strategy import Strategy

REFERENCE = "majority"
"""What every strategy is compared with."""
BASELINES = ("weighted", "best-of-n", "majority", "adaptive")
"""What the compute-optimal allocation is compared with."""


@dataclass(frozen=True)
class Power:
    """Watts that turn a study's seconds into joules."""

    watts: float | None
    source: str


def analyse(folders: Sequence[Path], progress: Callable[[float, str], None]) -> Report:
    """The figures of the studies in ``folders``. Raises InputError for one that holds none."""
    studies = [load_study(folder) for folder in folders]
    names = _names(studies, folders)
    parts: dict[str, list[Any]] = {name: [] for name in _LISTS}
    for number, (name, folder, study) in enumerate(zip(names, folders, studies, strict=True)):
        progress(number / len(folders), f"resampling {name}")
        weights, power = resample(len(study.problems)), _power(folder)
        parts["studies"].append(_info(name, study, power))
        parts["points"] += _points(name, study, weights, power)
        parts["bins"] += _bins(name, study, weights)
        parts["ratios"] += _ratios(name, study, weights)
        parts["differences"] += _differences(name, study, weights)
        parts["front"] += front(name, study, folder, weights)
        curves = _curves(study, weights)
        for difficulty, curve in curves.items():
            parts["optimal"] += _optimal(name, difficulty, curve, power)
            parts["savings"] += _savings(name, study, difficulty, curve, weights)
        if "predicted" in curves:
            parts["matched"] += matched(name, study, curves["predicted"], dict(zip(names, studies, strict=True)))
        parts["notes"] += _notes(name, study, curves)
    bootstrap = {"resamples": RESAMPLES, "seed": SEED}
    cited = tuple(figure for study in studies for figure in published.for_data(study.name))
    lists = {name: tuple(found) for name, found in parts.items()}
    return Report(**lists, answers=answers(studies), published=tuple(dict.fromkeys(cited)), bootstrap=bootstrap)


_LISTS = ("studies", "points", "bins", "ratios", "optimal", "savings", "differences", "matched", "front", "notes")


def _names(studies: Sequence[Loaded], folders: Sequence[Path]) -> list[str]:
    """The data set's name, with the folder's where two studies share one."""
    plain = [study.name for study in studies]
    return [n if plain.count(n) == 1 else f"{n} ({f.name})" for n, f in zip(plain, folders, strict=True)]


def _info(name: str, study: Loaded, power: Power) -> StudyInfo:
    config = study.config
    machine, device = config.get("made_on", {}), config.get("device")
    return StudyInfo(
        name,
        study.name,
        str(config.get("pack") or config.get("model", "")),
        config.get("policy_parameters") or config.get("parameters"),
        len(study.problems),
        study.seeds,
        f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores",
        str(device["policy"]) if isinstance(device, Mapping) else "endpoint",
        power.source,
    )


def _power(folder: Path) -> Power:
    """Mean power over all runs of a study."""
    runs = [row for _, row in read_lines(folder / RUNS)]
    known = [run for run in runs if run.get("joules") is not None and run["seconds"] > 0]
    if not known:
        return Power(None, "not known")
    watts = fsum(run["joules"] for run in known) / fsum(run["seconds"] for run in known)
    return Power(watts, ", ".join(sorted({str(run["energy"]) for run in known})))


def _cost(costs: Mapping[str, float], power: Power) -> Cost:
    seconds = costs["seconds"] or None  # 0 in the records of a replay
    return Cost(
        round(costs["policy_tokens"], 1),
        round(costs["verifier_tokens"], 1),
        round(costs["flops"]),
        seconds and round(seconds, 4),
        None if seconds is None or power.watts is None else round(seconds * power.watts, 2),
    )


def _points(name: str, study: Loaded, weights: Array, power: Power) -> Iterator[Point]:
    for (strategy, budget), solves in study.cells.items():
        costs = {key: float(value.mean()) for key, value in solves.costs.items()}
        yield Point(name, strategy, budget, share(solves.correct, weights), _cost(costs, power))


def _bins(name: str, study: Loaded, weights: Array) -> Iterator[BinPoint]:
    for difficulty, scores in _difficulties(study).items():
        where = bins(scores)
        for bin in range(BINS):
            inside = where == bin
            if not inside.any():
                continue  # where many problems have the same score, bins coincide
            for (strategy, budget), solves in study.cells.items():
                found = share(solves.correct[inside], weights[:, inside])
                yield BinPoint(name, difficulty, bin, int(inside.sum()), strategy, budget, found)


def _difficulties(study: Loaded) -> dict[Difficulty, Array]:
    known: dict[Difficulty, Array | None] = {"oracle": study.oracle, "predicted": study.predicted}
    return {name: scores for name, scores in known.items() if scores is not None}


def _chains(cell: Cell) -> int | None:
    """Attempts in a chain of a revising cell, None for any other."""
    strategy, budget = cell
    if strategy == AUTO:
        return None
    parsed = Strategy.parse(strategy, budget)
    return parsed.sequential if parsed.kind == "revise" else None


def _ratios(name: str, study: Loaded, weights: Array) -> Iterator[RatioPoint]:
    """Only where a study has several ratios of one budget."""
    revising = {cell: chain for cell in study.cells if (chain := _chains(cell)) is not None}
    budgets = [cell[1] for cell in revising]
    scores = study.predicted if study.predicted is not None else study.oracle
    for cell, chain in revising.items():
        if budgets.count(cell[1]) < 2:
            continue
        solves = study.cells[cell]
        yield RatioPoint(name, cell[1], chain, None, share(solves.correct, weights))
        if scores is None:
            continue
        for bin in range(BINS):
            inside = bins(scores) == bin
            if inside.any():
                yield RatioPoint(name, cell[1], chain, bin, share(solves.correct[inside], weights[:, inside]))


def _differences(name: str, study: Loaded, weights: Array) -> Iterator[Difference]:
    """Every strategy against the majority vote at its own budget; greedy against one sample."""
    for (strategy, budget), solves in study.cells.items():
        reference: Solves | None = study.cells.get((REFERENCE, budget))
        if strategy == REFERENCE or reference is None:
            continue
        found = share(solves.correct - reference.correct, weights)
        yield Difference(name, strategy, REFERENCE, budget, found.value, found.low, found.high)


def _curves(study: Loaded, weights: Array) -> dict[Difficulty, Curve]:
    if study.probe is None:
        return {}
    return {difficulty: allocate(study, scores, weights) for difficulty, scores in _difficulties(study).items()}


def _optimal(name: str, difficulty: Difficulty, curve: Curve, power: Power) -> Iterator[OptimalPoint]:
    """The points of the curve that no cheaper one beats."""
    flops, levels = curve.costs["flops"][0], curve.accuracy[0]
    kept = set(zip(*envelope(flops, levels), strict=True))
    for i, point in enumerate(zip(flops, levels, strict=True)):
        if point not in kept:
            continue
        kept.discard(point)  # neighbouring prices may buy the same
        accuracy = as_share(curve.accuracy[:, i])
        costs = {key: float(value[0, i]) for key, value in curve.costs.items()}
        cells = tuple(f"{strategy} at {budget}" for strategy, budget in curve.cells[i])
        yield OptimalPoint(name, difficulty, accuracy, _cost(costs, power), cells)


def _savings(name: str, study: Loaded, difficulty: Difficulty, curve: Curve, weights: Array) -> Iterator[Saving]:
    for strategy in BASELINES:
        if sum(cell[0] == strategy for cell in study.cells) < 2:
            continue
        other = baseline(study, strategy, weights)
        for unit in ("flops", "policy_tokens", "seconds"):
            if not other.costs[unit].any():
                continue
            yield Saving(name, difficulty, strategy, unit=unit, **asdict(saving(curve, other, unit)))


def _notes(name: str, study: Loaded, curves: Mapping[Difficulty, Curve]) -> Iterator[str]:
    if study.left_out:
        yield f"{name}: {study.left_out} problems miss records and are left out; run the same `bench run` to its end."
    if not curves and study.config.get("pack"):
        yield (
            f"{name}: no compute-optimal allocation, since difficulty is estimated from 4 samples; "
            "run with `weighted` (with a verifier) or `majority` among the strategies and 4 among the budgets."
        )
    if study.config.get(REPLAYED):
        yield f"{name}: figures are a replay of the study's stored samples by the search itself; times are not known."
    if study.pool:
        size, right = study.pool
        passed = float((right > 0).mean()) if study.seeds == 1 else None
        if passed is not None:
            yield f"{name}: {passed:.1%} of the problems have a right answer among {size} samples (pass@{size})."
