"""Exported process reward models side by side, on the same labelled held-out traces.

    python -m edge_tts.bench.compare_verifiers --validation held_out.jsonl FIRST SECOND ... --out comparison.json

Each verifier is a folder with ``prm.onnx`` and ``tokenizer.json``, as an export or a pack has them. Rows
are those of :mod:`edge_tts.export.train.train_prm`, with ``answer`` and ``correct``.

Every fifth question is for calibration: there the thresholds are chosen at which steps count as right
(label of at least 0.5) or as errors. All figures are of the other questions, those of selection with
95% intervals from resampled questions, paired where two ways or two verifiers are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.bench.intervals import mean_interval
from edge_tts.core import Verifier
from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm_metrics import Candidate, auc, best_threshold, f1, picks, step_metrics
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.runtimes.onnx_session import Device
from edge_tts.runtimes.onnx_verifier import OnnxVerifier

RIGHT = 0.5
"""A step whose label is at least this counts as right."""
CALIBRATION = 5
"""One question in so many is for calibration."""
COUNTS = (4, 8, 16)
Group = list[Row]
"""The traces of one question, in the order of the file."""


@dataclass
class Scores:
    """What one verifier said of all traces, and what that took."""

    verifier: Verifier
    bytes: int
    steps: list[list[tuple[float, ...]]] = field(default_factory=list)
    """Scores of the steps of every trace of every question."""
    tokens: int = 0
    seconds: float = 0.0

    def add(self, group: Group) -> None:
        began = time.perf_counter()
        scored = self.verifier.score(group[0].question, [row.steps for row in group])
        self.seconds += time.perf_counter() - began
        self.steps.append([one.scores for one in scored])
        self.tokens += sum(one.tokens for one in scored)


def compare(
    validation: Path,
    folders: Sequence[Path],
    counts: Sequence[int] = COUNTS,
    device: Device = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Everything that is told of the verifiers in ``folders``, as plain JSON types; see the module.

    ``counts`` are numbers of traces to select from. Raises InputError where rows lack what is needed,
    PackError for a damaged verifier.
    """
    groups = _groups(read_rows(validation), max(counts))
    names = [str(folder) for folder in folders]
    scores = {name: _open(folder, device, threads) for name, folder in zip(names, folders, strict=True)}
    for group in groups:  # the verifiers take turns, so that what else the machine does slows all alike
        for one in scores.values():
            one.add(group)
    for one in scores.values():
        one.verifier.close()
    test = [i for i in range(len(groups)) if i % CALIBRATION]
    selected = {n: {name: _selected(groups, one, test, n) for name, one in scores.items()} for n in counts}
    return {
        "questions": {"calibration": len(groups) - len(test), "test": len(test)},
        "traces": sum(len(groups[i]) for i in test),
        "by_count": {str(n): _common(next(iter(selected[n].values()))) for n in counts},
        "verifiers": {
            name: {
                **_cost(one, sum(map(len, groups))),
                **_steps(groups, one, test),
                "selection": {str(n): _selection(selected[n], name, names[0]) for n in counts},
            }
            for name, one in scores.items()
        },
    }


def _groups(rows: Sequence[Row], most: int) -> list[Group]:
    found: dict[str, Group] = {}
    for row in rows:
        if row.answer is None or row.correct is None:
            raise InputError(f"a trace of {row.id} has no answer or no correct; both are needed to compare selection")
        found.setdefault(row.question, []).append(row)
    groups = [group for group in found.values() if len(group) >= most]
    if len(groups) < 2 * CALIBRATION:
        raise InputError(
            f"{len(groups)} of {len(found)} questions have at least {most} traces; {2 * CALIBRATION} are needed: "
            "sample more, or give a smaller --counts"
        )
    return groups


def _open(folder: Path, device: Device, threads: int | None) -> Scores:
    path = folder / "prm.onnx"
    return Scores(OnnxVerifier(path, folder / "tokenizer.json", device, threads), path.stat().st_size)


def _cost(scores: Scores, traces: int) -> dict[str, Any]:
    info = scores.verifier.info
    per_token = 2 * info.parameters
    return {
        "bytes": scores.bytes,
        "parameters": info.parameters,
        "device": info.device,
        "flops_per_token": per_token,
        "tokens_per_trace": scores.tokens / traces,
        "flops_per_trace": per_token * scores.tokens / traces,
        "tokens_per_second": scores.tokens / scores.seconds,
        "traces_per_second": traces / scores.seconds,
    }


def _steps(groups: Sequence[Group], scores: Scores, test: Sequence[int]) -> dict[str, Any]:
    """How well the scores tell right steps and traces from wrong ones."""
    held = set(test)
    pairs = np.array([(*pair, i in held) for i, group in enumerate(groups) for pair in _pairs(group, scores.steps[i])])
    score, right, tested = pairs[:, 0], pairs[:, 1] >= RIGHT, pairs[:, 2] > 0
    found = {}
    for name, sign, wanted in (("right", 1, right), ("errors", -1, ~right)):
        level = best_threshold(sign * score[~tested], wanted[~tested])
        value = f1(sign * score[tested] >= level, wanted[tested])
        found[f"f1_{name}"] = {"value": value, "threshold": sign * level}
    finals = [_candidates(groups[i], scores.steps[i]) for i in test]
    inside = [auc(*_sides(group)) for group in finals if len({correct for _, correct, _ in group}) == 2]
    whole = auc(*_sides([candidate for group in finals for candidate in group]))
    return {
        "step": {**step_metrics([(a, b) for a, b, held_out in pairs if held_out]), **found},
        "final": {"auc": whole, "auc_within_a_question": float(np.mean(inside)) if inside else None},
    }


def _pairs(group: Group, scores: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """Score and label of every step."""
    for row, given in zip(group, scores, strict=True):
        yield from zip(given, row.labels, strict=True)


def _candidates(group: Group, scores: Sequence[Sequence[float]]) -> list[Candidate]:
    return [(str(r.answer), bool(r.correct), given[-1]) for r, given in zip(group, scores, strict=True)]


def _sides(group: Sequence[Candidate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Final scores of right and of wrong traces."""
    right = np.array([correct for _, correct, _ in group], bool)
    scores = np.array([score for *_, score in group], np.float64)
    return scores[right], scores[~right]


def _selected(groups: Sequence[Group], scores: Scores, test: Sequence[int], n: int) -> dict[str, NDArray[np.float64]]:
    """For each way to pick from ``n`` traces, how often it is right on each question: the mean over blocks of ``n``."""
    ways: dict[str, list[float]] = {}
    for i in test:
        candidates = _candidates(groups[i], scores.steps[i])
        blocks = [picks(candidates[at : at + n]) for at in range(0, len(candidates) - n + 1, n)]
        for way in blocks[0]:
            ways.setdefault(way, []).append(sum(block[way] for block in blocks) / len(blocks))
    return {way: np.array(values) for way, values in ways.items()}


def _common(selected: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """What no verifier changes."""
    return {way: asdict(mean_interval(selected[way])) for way in ("pass_at_1", "majority", "pass_at_n")}


def _selection(selected: Mapping[str, Mapping[str, NDArray[np.float64]]], name: str, reference: str) -> dict[str, Any]:
    """Accuracy by the verifier ``name``, less that of a majority vote, and less that by ``reference``."""
    mine, first = selected[name], selected[reference]
    told = {}
    for way in ("best_of_n", "weighted"):
        told[way] = asdict(mean_interval(mine[way]))
        told[f"{way}_less_majority"] = asdict(mean_interval(mine[way] - mine["majority"]))
        if name != reference:
            told[f"{way}_less_first"] = asdict(mean_interval(mine[way] - first[way]))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifiers", type=Path, nargs="+", metavar="VERIFIER", help="folder of prm.onnx and tokenizer")
    parser.add_argument("--validation", type=Path, required=True, help="labelled traces of held-out questions")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of traces to select from")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="default: one per physical core")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: standard output)")
    options = parser.parse_args()
    told = compare(options.validation, options.verifiers, options.counts, options.device, options.threads)
    text = json.dumps(told, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    sys.exit(command.run(main))
