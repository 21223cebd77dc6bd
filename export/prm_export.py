"""A reward model from its checkpoint, or from a training run, to ``prm.onnx``, ``tokenizer.json`` and measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_tts.errors import BackendError, PackError
from edge_tts.export.checkpoint import open_checkpoint
from edge_tts.export.graph_quantisation import Quant
from edge_tts.export.prm_cost import SHAPES, measure
from edge_tts.export.prm_graph import RewardModel, load, write
from edge_tts.export.prm_measurements import (
    Comparison,
    PrmMeasurements,
    Thresholds,
    compare,
    exported_scores,
    torch_scores,
)
from edge_tts.export.reward_heads import Head, recognise
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.files.atomic import Progress, building, publish, require_space, silent, turn
from edge_tts.packs.manifest import VERIFIER_ACCOUNT
from edge_tts.runtimes.onnx_session import load_tokenizer
from edge_tts.runtimes.onnx_verifier import OnnxVerifier
from edge_tts.runtimes.step_layout import StepEncoder

REFUSED = "prm-refused.json"
"""The measurements of a model that missed a threshold and was not written."""


def export_prm(
    folder: Path,
    out: Path,
    quant: Quant = "int8",
    head: str = "auto",
    rows: Sequence[Row] = (),
    thresholds: Thresholds | None = None,
    force: bool = False,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Export the reward model in ``folder`` into ``out``; returns its measurements (see :class:`PrmMeasurements`).

    ``rows`` are the traces to compare scores on. A training run of this project brings its own; a checkpoint exported
    without any is not called good. Latency and memory are measured for the (batch, length) pairs in ``shapes``.

    Raises InputError or PackError where the checkpoint cannot be exported, ResourceError where the disk is too small.
    Where the model misses a threshold and ``force`` is not set, raises PackError and writes only the measurements
    (``prm-refused.json``).
    """
    recognised = recognise(folder, head)
    progress(0.0, f"recognised {recognised.reason}")
    tokenizer_path = folder / "tokenizer.json"
    tokenizer = load_tokenizer(tokenizer_path)
    model = _load(folder, recognised, tokenizer, out)
    if recognised.kind == "ours":
        rows = rows or read_rows(folder / "sample.jsonl", labelled=False)
    progress(0.1, "scoring the traces with PyTorch")
    reference = torch_scores(model, StepEncoder(model.layout, tokenizer, model.sizes.positions), rows)
    with turn(out, progress), building(out) as temporary:
        progress(0.4, f"exporting to ONNX in {quant}")
        files = write(model, tokenizer_path, temporary, quant)
        progress(0.6, "scoring the traces with ONNX Runtime")
        limits = thresholds or Thresholds()
        compared = _compare(quant, files[0], tokenizer_path, rows, reference, limits)
        failures = compared.failures if compared else ()
        progress(0.8, "measuring latency and memory")
        costs = measure(files[0], [shape for shape in shapes if shape[1] <= model.sizes.positions])
        size = sum(file.stat().st_size for file in files)
        forced = force and bool(failures)
        measured = PrmMeasurements(quant, size, recognised.reason, compared, tuple(costs), limits, forced)
        report, copied = temporary / VERIFIER_ACCOUNT, temporary / "tokenizer.json"
        report.write_text(json.dumps(measured.to_dict(), indent=1) + "\n", encoding="utf-8")
        if failures and not force:
            publish(report, out / REFUSED)  # measurements that are there already belong to the model that is there
            raise PackError(
                f"the {quant} model is not good enough ({'; '.join(failures)}) and was not written; all measurements "
                f"are in {out / REFUSED}; choose another --quant, set other thresholds, or write it anyway with --force"
            )
        copied.write_bytes(tokenizer_path.read_bytes())
        for file in (copied, *files[1:], files[0], report):
            publish(file, out / file.name)
        for stale in {REFUSED, "prm.onnx.data"} - {file.name for file in files}:
            (out / stale).unlink(missing_ok=True)
    return measured.to_dict()


def _load(folder: Path, head: Head, tokenizer: Any, out: Path) -> RewardModel:
    """The model in ``folder``, once there is room in ``out`` for it in float32 twice and for the result."""
    if head.kind != "ours":
        require_space(out, 5 * open_checkpoint(folder).f16_bytes)
        return load(folder, head)
    from edge_tts.export.truncated_policy import load_run

    require_space(out, 3 * (folder / "model.pt").stat().st_size)
    return load_run(folder).reward_model(tokenizer)


def _compare(
    quant: Quant, path: Path, tokenizer: Path, rows: Sequence[Row], reference: list[list[float]], limits: Thresholds
) -> Comparison | None:
    if not rows:
        return None
    verifier = OnnxVerifier(path, tokenizer, "cpu")
    try:
        exported = exported_scores(verifier, rows)
    except BackendError as error:  # float16 overflows in some models
        raise PackError(f"the {quant} model cannot score the traces ({error}); choose another --quant") from error
    finally:
        verifier.close()
    return compare(rows, reference, exported, limits)
