"""An importance matrix: how much each input column of a weight matters, measured on a text.

A quantiser that is given one rounds the columns with large activations more carefully. The importance of a column is
its mean squared activation, as in llama.cpp's imatrix tool. Here the model runs in PyTorch, whose hooks see every
matrix of every architecture; the ``gguf`` package maps the names to those of the GGUF.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from edge_tts.errors import InputError
from edge_tts.export.checkpoint import first_line
from edge_tts.files.atomic import Progress, silent
from edge_tts.files.gguf import open_gguf

WINDOW = 512
MAX_TOKENS = 8192
"""More text changes little: every column has seen thousands of tokens by then."""
LEAST_TOKENS = 128


@torch.no_grad()
def measure(folder: Path, converted: Path, text: str, progress: Progress = silent) -> dict[str, NDArray[np.float32]]:
    """Mean squared activation of each input column, by tensor name of ``converted``, the GGUF made from ``folder``.

    Raises InputError for a text that is too short or a model that transformers cannot load.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress(0.0, "loading the model to measure importance")
    try:
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)  # type: ignore[no-untyped-call]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"transformers cannot load {folder} to measure importance: {first_line(error)}") from error
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0][:MAX_TOKENS]
    if len(ids) < LEAST_TOKENS:
        raise InputError(
            f"the text for the importance matrix has {len(ids)} tokens; at least {LEAST_TOKENS} are needed"
        )
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = defaultdict(int)

    def watch(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, torch.zeros(rows.shape[1])) + rows.float().square().sum(dim=0)
            counts[name] += len(rows)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(name))
    for start in range(0, len(ids), WINDOW):
        progress(start / len(ids), "measuring importance")
        model(ids[None, start : start + WINDOW])
    names = _names(converted, sums)
    return {names[name]: (sums[name] / counts[name]).numpy() for name in names}


def _names(converted: Path, modules: dict[str, Any]) -> dict[str, str]:
    """For each module whose weight is in ``converted``, the name of that tensor."""
    reader = open_gguf(converted)
    present = {tensor.name for tensor in reader.tensors}
    field = reader.get_field("general.architecture")
    family = str(field.contents()) if field else ""
    kind = next((arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family), None)
    if kind is None:
        raise InputError(f"the gguf package does not know the architecture {family!r}; quantise without --imatrix")
    blocks = reader.get_field(f"{family}.block_count")
    table = gguf.get_tensor_name_map(kind, int(blocks.contents()) if blocks else 0)
    found = {name: table.get_name(f"{name}.weight", try_suffixes=(".weight",)) for name in modules}
    return {name: tensor for name, tensor in found.items() if tensor is not None and tensor in present}
