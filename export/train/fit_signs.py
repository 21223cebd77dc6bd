"""Fits the verifier of programs: what the signs of a program weigh (:mod:`edge_tts.runtimes.program_verifier`).

Labels are those of :mod:`edge_tts.export.train.labels`. All figures of the report are of held-out problems (five
folds), beside those of the mean log-probability, which costs nothing, too. The folds' fits are kept with it: what is
fitted on scores of the same problems, such as the controller, needs scores that their answers had no part in
(:mod:`edge_tts.bench.program_scores`). With ``--test``, the fit on all problems is measured once on other problems:

    python -m edge_tts.export.train.fit_signs --data rows.jsonl --test test_rows.jsonl --out program_verifier.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_tts.export import command
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train.heads import (
    FOLDS,
    Floats,
    Targets,
    fold_of,
    likelihood,
    logistic,
    require_folds,
    worth_by_policy,
)
from edge_tts.reasoning.program_signs import is_complete, signs
from edge_tts.runtimes.program_verifier import BIAS, FORMAT, ProgramVerifier, SignWeights

RIDGE = 30.0
Weights = dict[str, float]


def fit(rows: Sequence[Row]) -> SignWeights:
    """Both regressions on all of ``rows``; a program without an answer only teaches what its beginnings are worth."""
    complete, growing = [], []
    for row in rows:
        for n, label in enumerate(row.labels, 1):
            if not is_complete(row.steps[:n]):
                growing.append((row, n, label))
            elif n == len(row.steps) and row.answer is not None:
                complete.append((row, n, label))
    return SignWeights(_regression(complete), _regression(growing))


def _regression(examples: Sequence[tuple[Row, int, float]]) -> Weights:
    names = tuple(signs("", ()))
    x: Floats = np.array([list(signs(row.question, row.steps[:n]).values()) for row, n, _ in examples])
    targets = Targets.of([label for *_, label in examples], [1.0] * len(examples), [row for row, *_ in examples])
    weight, bias = logistic(x, targets, RIDGE)
    return {BIAS: round(bias, 4), **{name: round(float(w), 4) for name, w in zip(names, weight, strict=True)}}


def scored(rows: Sequence[Row], weights: SignWeights) -> list[tuple[Row, float]]:
    """Each trace with its final score."""
    verifier = ProgramVerifier(weights)
    return [(row, verifier.score(row.question, [row.steps])[0].scores[-1]) for row in rows]


def run(data: Path, test: Path | None = None) -> Mapping[str, Any]:
    """The file that :meth:`SignWeights.parse` reads, with its evidence. Raises InputError for data that do not fit."""
    rows = read_rows(data)
    require_folds(rows, data)
    folds = [fit([row for row in rows if fold_of(row.id) != fold]) for fold in range(FOLDS)]
    finals = [
        found for fold in range(FOLDS) for found in scored([r for r in rows if fold_of(r.id) == fold], folds[fold])
    ]
    weights = fit(rows)
    evidence = {
        "problems": len({row.id for row in rows}),
        "traces": len(rows),
        "folds": [asdict(weights) for weights in folds],
        "held_out": {"signs": worth_by_policy(finals), "log-probability": likelihood(rows)},
    }
    if test is not None:
        other = read_rows(test)
        evidence["test"] = {"signs": worth_by_policy(scored(other, weights)), "log-probability": likelihood(other)}
    return {"format": FORMAT, "complete": weights.complete, "growing": weights.growing, "evidence": evidence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled programs of train.labels, JSON lines")
    parser.add_argument("--test", type=Path, help="programs of other problems to measure the fit on")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    found = run(options.data, options.test)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, told in found["evidence"].items():
        if isinstance(told, dict):
            for policy, figures in told["signs"].items():
                print(f"{name}, {policy}: {json.dumps(figures['auc_within_a_question'])}")


if __name__ == "__main__":
    sys.exit(command.run(main))
