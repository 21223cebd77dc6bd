"""A PEFT LoRA adapter as a llama.cpp one: a GGUF small enough to ship inside a pack.

python -m edge_tts.export.adapter --peft RUN/adapter --base BASE.gguf --out adapter.gguf
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edge_tts.errors import InputError, PackError
from edge_tts.export import command
from edge_tts.files.gguf import open_gguf
from edge_tts.packs.vocabulary_cut import VOCABULARY_KEY

MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Linear layers of a Llama block: transformers' name to llama.cpp's."""

_KEY = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")

_UNSUPPORTED = {
    "use_dora": "DoRA's magnitudes",
    "use_rslora": "rank-stabilised scaling",
    "alpha_pattern": "an alpha for each layer",
    "modules_to_save": "fully trained layers",
    "trainable_token_indices": "trained token embeddings",
    "lora_bias": "LoRA biases",
}
"""Settings of adapter_config.json that a llama.cpp adapter has no place for."""


def convert(peft: Path, base: Path, out: Path, storage: str = "Q4_0", vocabulary: Sequence[int] | None = None) -> None:
    """Write the PEFT adapter in folder ``peft`` as a LoRA GGUF for the Llama-family model ``base``.

    Matrices are stored as ``storage`` (Q4_0, Q8_0, F16) where their rows are whole blocks of 32, as F16
    elsewhere. Q4_0 is for shipping: for the same bytes, twice the rank gains more than eight bits do.
    ``vocabulary``, ids in ascending order, is what a merge will keep of the base's tokens.
    Raises InputError where the adapter uses what llama.cpp's format cannot hold or does not fit the base,
    PackError where ``base`` is damaged.
    """
    from safetensors.numpy import load_file

    config = _config(peft / "adapter_config.json")
    model = open_gguf(base)
    heads = {"attn_q": _number(model, base, "head_count"), "attn_k": _number(model, base, "head_count_kv")}
    shapes = {tensor.name: [int(n) for n in reversed(tensor.shape)] for tensor in model.tensors}
    writer = gguf.GGUFWriter(out, arch="llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    if vocabulary is not None:
        writer.add_array(VOCABULARY_KEY, list(vocabulary))
    for key, weight in sorted(load_file(peft / "adapter_model.safetensors").items()):
        match = _KEY.fullmatch(key)
        if match is None or match[2] not in MODULES:
            raise InputError(f"{peft} adapts {key}, which has no llama.cpp name; train {', '.join(MODULES)} only")
        layer, module, part = match[1], MODULES[match[2]], match[3].lower()
        name = f"blk.{layer}.{module}.weight"
        # lora_a (rank, inputs) meets the base's inputs, lora_b (outputs, rank) its outputs.
        side = 1 if part == "a" else 0
        if name not in shapes or weight.shape[side] != shapes[name][side]:
            raise InputError(f"{key} of shape {weight.shape} does not fit {base.name}; give the base it was trained on")
        if part == "b" and module in heads:
            weight = permute(weight, heads[module])
        kind = _storage(weight, storage)
        writer.add_tensor(f"{name}.lora_{part}", gguf.quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Reorder the rows of a query or key matrix (rows, columns) from transformers' rotary layout to llama.cpp's.

    Transformers rotates row i of a head together with row i + half; llama.cpp's "normal" RoPE
    rotates neighbours, rows 2i and 2i + 1 (LLAMA_ROPE_TYPE_NORM).
    """
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def unpermute(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """The inverse of :func:`permute`."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _storage(weight: npt.NDArray[Any], storage: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[storage if weight.shape[1] % 32 == 0 else "F16"]


def _config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a folder PEFT's save_pretrained wrote") from error
    if config.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters can be converted")
    for setting, meaning in _UNSUPPORTED.items():
        if config.get(setting):
            raise InputError(f"{path}: {setting} is set; a llama.cpp adapter cannot hold {meaning}, train without")
    return config


def _number(model: Any, path: Path, key: str) -> int:
    field = model.get_field(f"llama.attention.{key}")
    if field is None:
        raise PackError(f"{path} has no llama.attention.{key}; only models of the llama architecture can be converted")
    return int(field.contents())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peft", type=Path, required=True, help="folder with adapter_config.json and its weights")
    parser.add_argument("--base", type=Path, required=True, help="the GGUF the adapter was trained on")
    parser.add_argument("--out", type=Path, required=True, help="GGUF to write")
    parser.add_argument("--storage", choices=("Q4_0", "Q8_0", "F16"), default="Q4_0")
    parser.add_argument("--vocabulary", type=Path, help="JSON list of the token ids to keep")
    options = parser.parse_args()
    vocabulary = json.loads(options.vocabulary.read_text()) if options.vocabulary else None
    convert(options.peft, options.base, options.out, options.storage, vocabulary)


if __name__ == "__main__":
    sys.exit(command.run(main))
