"""A reward model from its checkpoint to ``prm.onnx``, ``tokenizer.json`` and ``prm-account.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_tts.errors import BackendError, InputError, PackError
from edge_tts.export.checkpoint import open_checkpoint
from edge_tts.export.heads import recognise
from edge_tts.export.prm_cost import SHAPES, measure
from edge_tts.export.prm_graph import EncoderReward, Quant, StepReward, load, write
from edge_tts.export.prm_measurements import (
    Comparison,
    PrmAccount,
    Sample,
    Thresholds,
    compare,
    exported_scores,
    torch_scores,
)
from edge_tts.files.atomic import Progress, building, exclusive, publish, require_space, silent
from edge_tts.packs.manifest import VERIFIER_ACCOUNT
from edge_tts.runtimes.onnx_session import load_tokenizer
from edge_tts.runtimes.step_layout import StepEncoder
from edge_tts.runtimes.verifiers import open_verifier

REFUSED = "prm-refused.json"
"""The account of a model that missed a threshold and was not written."""


def export_prm(
    folder: Path,
    out: Path,
    quant: Quant = "int8",
    head: str = "auto",
    samples: Sequence[Sample] = (),
    thresholds: Thresholds | None = None,
    force: bool = False,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Export the reward model in ``folder`` into ``out``; returns its account (see :class:`PrmAccount`).

    Without ``samples`` nothing is compared, and the model is not called good. ``shapes`` are the
    (batch, length) pairs whose latency and memory are measured. A training run of this project goes
    to :func:`edge_tts.export.prm.export`, with an account of its own.

    Raises InputError or PackError where the checkpoint cannot be exported, ResourceError where the
    disk is too small; PackError, with only an account written (``prm-refused.json``), where the model
    misses a threshold and ``force`` is not set.
    """
    recognised = recognise(folder, head)
    progress(0.0, f"recognised {recognised.reason}")
    if recognised.kind == "ours":
        return _export_ours(folder, out, quant, force)
    tokenizer_path = folder / "tokenizer.json"
    require_space(out, 5 * open_checkpoint(folder).f16_bytes)  # float32 twice, and the result
    model = load(folder, recognised)
    progress(0.1, "scoring the traces with PyTorch")
    encoder = StepEncoder(model.layout, load_tokenizer(tokenizer_path), model.sizes.positions)
    reference = torch_scores(model, encoder, samples)
    with exclusive(out, progress), building(out) as temporary:
        progress(0.4, f"exporting to ONNX in {quant}")
        files = write(model, tokenizer_path, temporary, quant)
        progress(0.6, "scoring the traces with ONNX Runtime")
        limits = thresholds or Thresholds()
        compared = _compare(model, quant, files[0], tokenizer_path, samples, reference, limits)
        failures = compared.failures if compared else ()
        progress(0.8, "measuring latency and memory")
        costs = measure(files[0], [shape for shape in shapes if shape[1] <= model.sizes.positions])
        size = sum(file.stat().st_size for file in files)
        forced = force and bool(failures)
        account = PrmAccount(quant, size, recognised.reason, compared, tuple(costs), limits, forced)
        report, tokenizer = temporary / VERIFIER_ACCOUNT, temporary / "tokenizer.json"
        report.write_text(json.dumps(account.to_dict(), indent=1) + "\n", encoding="utf-8")
        if failures and not force:
            publish(report, out / REFUSED)  # an account in place belongs to the model in place
            raise PackError(
                f"the {quant} model is not good enough ({'; '.join(failures)}) and was not written; the account is in "
                f"{out / REFUSED}; choose another --quant, set other thresholds, or write it all the same with --force"
            )
        tokenizer.write_bytes(tokenizer_path.read_bytes())
        for file in (tokenizer, *files[1:], files[0], report):
            publish(file, out / file.name)
        for stale in {REFUSED, "prm.onnx.data"} - {file.name for file in files}:
            (out / stale).unlink(missing_ok=True)
    return account.to_dict()


def _compare(
    model: StepReward,
    quant: Quant,
    path: Path,
    tokenizer: Path,
    samples: Sequence[Sample],
    reference: list[list[float]],
    thresholds: Thresholds,
) -> Comparison | None:
    if not samples:
        return None
    verifier = open_verifier(path, tokenizer, "cpu")
    try:
        exported = exported_scores(verifier, samples)
    except BackendError as error:  # float16 overflows in some models
        raise PackError(f"the {quant} model cannot score the traces ({error}); choose another --quant") from error
    finally:
        verifier.close()
    return compare(samples, reference, exported, isinstance(model, EncoderReward), thresholds)


def _export_ours(folder: Path, out: Path, quant: Quant, force: bool) -> dict[str, Any]:
    from edge_tts.export import prm

    if quant == "fp16":
        raise InputError("a training run of this project is exported in fp32, int8 or int4, not in fp16; choose one")
    return prm.export(folder, out, force, quant)
