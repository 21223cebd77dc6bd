"""Merge a PEFT LoRA adapter into a checkpoint, tensor by tensor, for any architecture.

It works on names and matrices alone, without building a model: ``model.x.weight`` becomes ``weight + scale * B @ A``
where the adapter has ``base_model.model.model.x.lora_A.weight`` and its ``lora_B``.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from edge_tts.errors import InputError
from edge_tts.export.checkpoint import Checkpoint, Tensor, read_config, read_header
from edge_tts.files.typed import typed

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
_UNSUPPORTED = {
    "use_dora": "DoRA's magnitudes",
    "alpha_pattern": "an alpha for each layer",
    "modules_to_save": "fully trained layers",
    "trainable_token_indices": "trained token embeddings",
    "lora_bias": "LoRA biases",
}
"""Settings of an adapter that add something to the base beside the matrices A and B."""


class LoraConfig(TypedDict):
    """What is used of an adapter's ``adapter_config.json``."""

    r: Annotated[int, Meta(ge=1)]
    lora_alpha: float
    use_rslora: NotRequired[bool]
    fan_in_fan_out: NotRequired[bool]


def merge(checkpoint: Checkpoint, peft: Path, out: Path) -> Iterator[float]:
    """Merge the adapter in folder ``peft`` into ``checkpoint`` and write the result to the new folder ``out``.

    Yields the fraction done. One file of the checkpoint is in memory at a time, and one matrix in float32. Raises
    InputError where the adapter does not fit the checkpoint or consists of more than LoRA matrices.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    scale, transposed = _scale(peft)
    weights = peft / "adapter_model.safetensors"
    if not weights.exists():
        raise InputError(f"{weights} is missing; pickled adapters are refused, save with safe_serialization=True")
    pairs = _pairs(checkpoint, read_header(weights), peft, transposed)
    out.mkdir(parents=True)
    for path in checkpoint.folder.iterdir():
        if path.is_file() and path.suffix in (".json", ".model", ".txt", ".jinja"):
            shutil.copyfile(path, out / path.name)
    done = 0
    with safe_open(weights, framework="pt") as adapter:
        for file in checkpoint.files:
            merged: dict[str, Any] = {}
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 (not a mapping)
                    weight = content.get_tensor(name)
                    if name in pairs:
                        down, up = (adapter.get_tensor(key).float() for key in pairs[name])
                        change = scale * (up @ down)
                        weight = (weight.float() + (change.T if transposed else change)).to(weight.dtype)
                    merged[name] = weight.contiguous()
                    done += 1
                    yield done / len(checkpoint.tensors)
            save_file(merged, out / file.name, metadata={"format": "pt"})
            del merged


def lora_config(peft: Path, also_unsupported: Mapping[str, str]) -> LoraConfig:
    """``adapter_config.json`` of the LoRA adapter in folder ``peft``.

    ``also_unsupported`` names further settings that the caller cannot handle, with what they mean. Raises InputError
    where one is set, or where the adapter is no LoRA.
    """
    path = peft / "adapter_config.json"
    config = read_config(path)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters can be used")
    for setting, meaning in {**_UNSUPPORTED, **also_unsupported}.items():
        if config.get(setting):
            raise InputError(f"{path}: {setting} is set, but {meaning} cannot be kept; train without")
    return typed(LoraConfig, config, str(path), InputError)


def _scale(peft: Path) -> tuple[float, bool]:
    """The factor of B @ A, and whether weights are stored transposed (GPT-2's Conv1D)."""
    config = lora_config(peft, {"rank_pattern": "a rank for each layer"})
    rank, transposed = config["r"], config.get("fan_in_fan_out", False)
    return config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank), transposed


def _pairs(checkpoint: Checkpoint, adapter: list[Tensor], peft: Path, transposed: bool) -> dict[str, tuple[str, str]]:
    """For each checkpoint tensor that is adapted, the adapter's names of A and B; all shapes are checked."""
    found: dict[str, dict[str, Tensor]] = {}
    for tensor in adapter:
        match = _KEY.fullmatch(tensor.name)
        if match is None:
            raise InputError(
                f"{peft} holds {tensor.name}, which is no LoRA matrix; train without it, or merge it with PEFT"
            )
        found.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
    for name, parts in found.items():
        target = checkpoint.tensors.get(name)
        if target is None:
            raise InputError(f"{peft} adapts {name}, which {checkpoint.folder} lacks; give the base it was trained on")
        if set(parts) != {"A", "B"}:
            raise InputError(f"{peft} has only lora_{min(parts)} of {name}; restore the adapter")
        fits = (parts["B"].shape[0], parts["A"].shape[1])
        if (fits[::-1] if transposed else fits) != target.shape:
            raise InputError(
                f"{peft} changes {name} as a matrix of {fits[0]} x {fits[1]} and the base has {target.shape} "
                "(another vocabulary or size); give the base it was trained on"
            )
    return {name: (parts["A"].name, parts["B"].name) for name, parts in found.items()}
