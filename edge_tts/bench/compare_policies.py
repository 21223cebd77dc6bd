"""Samples of several policies on the same problems, side by side.

    python -m edge_tts.bench.compare_policies FIRST.jsonl SECOND.jsonl ... --out comparison.json

Files are those of the rollouts recipe. Problems that are not in all of them are left out; intervals are of
95% over resampled problems, and differences from the first file are paired.
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

from edge_tts.bench.intervals import mean_interval
from edge_tts.bench.machine import describe
from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm_metrics import Candidate, picks
from edge_tts.export.trace_rows import read_rows

WAYS = ("pass_at_1", "majority", "pass_at_n")


def compare(files: Sequence[Path]) -> dict[str, Any]:
    """Share of problems right, in [0, 1], by single samples, by a vote, and by any sample, as plain JSON types.

    Raises InputError where no problem is in all of ``files`` or a trace lacks its answer.
    """
    groups = {str(path): _groups(path) for path in files}
    first, *others = groups.values()
    shared = sorted(set(first).intersection(*others))
    if not shared:
        raise InputError(f"no problem is in all of {', '.join(groups)}; sample the same --split with the same --seed")
    picked = {name: [picks(found[id]) for id in shared] for name, found in groups.items()}
    reference = next(iter(picked.values()))
    told: dict[str, Any] = {}
    for name, mine in picked.items():
        told[name] = {"traces": sum(len(groups[name][id]) for id in shared)}
        for way in WAYS:
            values, base = (np.array([one[way] for one in side]) for side in (mine, reference))
            told[name][way] = asdict(mean_interval(values))
            if mine is not reference:
                told[name][f"{way}_less_first"] = asdict(mean_interval(values - base))
    return {"problems": shared, "made_on": describe(), "files": told}


def _groups(path: Path) -> Mapping[str, list[Candidate]]:
    """The traces of each problem, all with the same score: nothing here selects by one."""
    found: dict[str, list[Candidate]] = {}
    for row in read_rows(path):
        if row.correct is None:
            raise InputError(f"{path}: a trace of {row.id} does not say `correct`; sample with train.rollouts")
        found.setdefault(row.id, []).append((row.answer, row.correct, 0.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", type=Path, nargs="+", help="labelled traces of the same problems")
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    options = parser.parse_args()
    options.out.write_text(json.dumps(compare(options.rollouts), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command.run(main))
