"""Fits the head of a process reward model on frozen first layers of a policy, and measures how many layers pay.

The layers read every trace once (:mod:`edge_tts.export.train.frozen_layers`). A head for each depth is then fitted in
seconds: a logistic regression with a ridge penalty on the soft labels of :mod:`edge_tts.export.train.labels`, where
every problem weighs the same.

All figures in ``RUN/report.json`` are of held-out problems: ``FOLDS`` folds split by problem, which all policies share.
Beside the heads stands what costs nothing, the mean log-probability. The depth with the best AUC within a question is
taken unless ``--layers`` names one, and its head is calibrated on held-out scores (Platt 1999). The run folder is then
what ``edge-reason export prm`` exports and ``train_prm --base`` trains on:

    python -m edge_tts.export.train.fit_prm --base qwen2.5-coder-0.5b.gguf --data rows.jsonl --out RUN
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm_metrics import step_metrics
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train.frozen_layers import FrozenLayers
from edge_tts.export.train.heads import (
    Floats,
    Targets,
    calibrated,
    held_out,
    likelihood,
    logistic,
    require_folds,
    worth_by_policy,
)
from edge_tts.export.train.packing import Packer
from edge_tts.export.train.sft import save_torch
from edge_tts.export.train.train_prm import write_sample
from edge_tts.export.truncated_policy import POSITIONS, TruncatedPolicy, load_policy, step_encoder
from edge_tts.packs.gguf_tokenizer import tokenizer_json

DEPTHS = (4, 8, 12, 16, 24)
RIDGES = (30.0, 300.0, 3000.0)
PACK_TOKENS = 1500


@dataclass(frozen=True)
class Steps:
    """All distinct steps of all traces."""

    states: NDArray[np.float16]
    """(steps, depths, hidden)."""
    targets: Targets
    traces: tuple[tuple[Row, int], ...]
    """Each trace with the index of its last step."""


def collect(rows: Sequence[Row], layers: FrozenLayers, packer: Packer) -> Steps:
    """Evaluate every distinct step of ``rows`` once. Traces longer than the positions are left out."""
    states, labels, weights = [], [], []
    owners: list[Row] = []
    traces: list[tuple[Row, int]] = []
    by_policy: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_policy[row.policy].append(row)
    packs = [pair for group in by_policy.values() for pair in packer.packs(group)]
    for taken, pack in track(packs, "reading traces"):
        states.append(layers.states(pack)[1:])  # without the question
        labels += pack.labels[1:]
        weights += pack.weights[1:]
        whole = [(row, nodes) for row, nodes in zip(taken, pack.nodes, strict=True) if len(nodes) == len(row.steps)]
        traces += [(row, len(owners) + nodes[-1] - 1) for row, nodes in whole]
        owners += [taken[0]] * (len(pack.chunks) - 1)
    return Steps(np.concatenate(states), Targets.of(labels, weights, owners), tuple(traces))


@dataclass(frozen=True)
class Head:
    """What was fitted at one depth."""

    depth: int
    ridge: float
    logits: Floats
    """Held-out logits of all steps."""
    report: dict[str, Any]


def fit_depth(steps: Steps, index: int, depth: int) -> Head:
    """The head at one depth, with the ridge of the least held-out cross-entropy."""
    x = steps.states[:, index].astype(np.float32)
    tried = []
    for ridge in RIDGES:
        logits = held_out(x, steps.targets, ridge)
        scores = calibrated(logits, steps.targets)
        measured = step_metrics(list(zip(scores.tolist(), steps.targets.labels.tolist(), strict=True)))
        tried.append((measured["bce"], ridge, scores, logits, measured))
    _, ridge, scores, logits, measured = min(tried, key=lambda trial: trial[0])
    finals = [(row, float(scores[at])) for row, at in steps.traces]
    return Head(depth, ridge, logits, {"ridge": ridge, "step": measured, "by_policy": worth_by_policy(finals)})


def _auc(head: Head) -> float:
    found = [policy["auc_within_a_question"].get("value", 0.5) for policy in head.report["by_policy"].values()]
    return float(np.mean(found))


def run(
    base: Path, data: Path, out: Path, depths: Sequence[int] = DEPTHS, layers: int | None = None
) -> Mapping[str, Any]:
    """Fit, measure and write ``model.pt``, ``tokenizer.json``, ``sample.jsonl`` and ``report.json`` into ``out``.

    Raises InputError for a base or data that do not fit, and where fewer problems than folds are there.
    """
    rows = read_rows(data)
    require_folds(rows, data)
    if layers is not None and layers not in depths:
        raise InputError(f"--layers {layers} is not among the depths {', '.join(map(str, depths))}; add it")
    out.mkdir(parents=True, exist_ok=True)
    text = tokenizer_json(base) if base.suffix == ".gguf" else (base / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    model = load_policy(base, None, max(depths), max(depths), reads="chat")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frozen = FrozenLayers(model.backbone.to(device), depths, out / "states", base.name)
    packer = Packer(step_encoder(tokenizer, "chat"), POSITIONS["chat"], PACK_TOKENS)
    steps = collect(rows, frozen, packer)
    heads = [fit_depth(steps, index, depth) for index, depth in enumerate(depths)]
    chosen = next((h for h in heads if h.depth == layers), max(heads, key=_auc))
    _write(model, chosen, steps, list(depths).index(chosen.depth), out)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    write_sample(out, rows, seed=0)
    report = {
        "base": base.name,
        "traces": len(steps.traces),
        "problems": len({row.id for row in rows}),
        "steps": len(steps.states),
        "chosen_layers": chosen.depth,
        "log-probability": {"by_policy": likelihood([row for row, _ in steps.traces])},
        "layers": {str(head.depth): head.report for head in heads},
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _write(model: TruncatedPolicy, head: Head, steps: Steps, index: int, out: Path) -> None:
    """The model cut to the chosen depth, with a head fitted on all problems and calibrated on held-out logits."""
    x = steps.states[:, index].astype(np.float32)
    weight, bias = logistic(x, steps.targets, head.ridge)
    slope, offset = logistic(head.logits[:, None], steps.targets, 1e-3)
    model.backbone.layers = model.backbone.layers[: head.depth]
    model.backbone.config.num_hidden_layers = head.depth
    model.head.weight.data = torch.tensor(weight * slope[0], dtype=torch.float32)[None]
    model.head.bias.data = torch.tensor([bias * slope[0] + offset], dtype=torch.float32)
    save_torch(out / "model.pt", model.cpu().content())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the policy: a GGUF or a checkpoint folder")
    parser.add_argument("--data", type=Path, required=True, help="labelled traces of train.labels, JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="numbers of layers to compare")
    parser.add_argument("--layers", type=int, help="the depth to write; default: the best")
    options = parser.parse_args()
    report = run(options.base, options.data, options.out, options.depths, options.layers)
    for depth, found in report["layers"].items():
        inside = {policy: told["auc_within_a_question"] for policy, told in found["by_policy"].items()}
        print(f"{depth} layers: {json.dumps(inside)}")


if __name__ == "__main__":
    sys.exit(command.run(main))
