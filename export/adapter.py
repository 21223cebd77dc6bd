"""A PEFT LoRA adapter converted to llama.cpp's format: a GGUF small enough to ship inside a pack.

python -m edge_tts.export.adapter --peft RUN/adapter --base BASE.gguf --out adapter.gguf
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edge_tts.errors import InputError, PackError
from edge_tts.export import command
from edge_tts.export.merge_lora import lora_config
from edge_tts.files.gguf import open_gguf
from edge_tts.files.gguf_header import Value, read_header
from edge_tts.packs.vocabulary_cut import VOCABULARY_KEY

FAMILIES = ("llama", "qwen2")
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


def convert(peft: Path, base: Path, out: Path, storage: str = "Q4_0", vocabulary: Sequence[int] | None = None) -> None:
    """Write the PEFT adapter in folder ``peft`` as a LoRA GGUF for ``base``, a Llama or Qwen2.

    Matrices are stored as ``storage`` (Q4_0, Q8_0, F16) where their rows are whole blocks of 32, otherwise as F16.
    Q4_0 is for shipping: for the same bytes, twice the rank gains more than eight bits do. ``vocabulary`` lists the
    ids, in ascending order, of the base's tokens that a merge will keep.

    Raises InputError where the adapter does not fit the base or uses something that llama.cpp's format cannot hold,
    PackError where ``base`` is damaged.
    """
    from safetensors.numpy import load_file

    config = lora_config(peft, {"use_rslora": "rank-stabilised scaling"})
    header = read_header(base)
    family = str(header.get("general.architecture"))
    if family not in FAMILIES:
        raise InputError(f"{base} is a {family}; adapters are converted for {' and '.join(FAMILIES)} only")
    # Rotary halves lie side by side in a Llama's rows alone.
    rotated = {"attn_q": "head_count", "attn_k": "head_count_kv"} if family == "llama" else {}
    heads = {module: _number(header, base, f"llama.attention.{key}") for module, key in rotated.items()}
    shapes = {tensor.name: [int(n) for n in reversed(tensor.shape)] for tensor in open_gguf(base).tensors}
    writer = gguf.GGUFWriter(out, arch=family)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", config["lora_alpha"])
    if vocabulary is not None:
        writer.add_array(VOCABULARY_KEY, list(vocabulary))
    for key, weight in sorted(load_file(peft / "adapter_model.safetensors").items()):
        match = _KEY.fullmatch(key)
        if match is None or match[2] not in MODULES:
            raise InputError(f"{peft} adapts {key}, which has no llama.cpp name; train {', '.join(MODULES)} only")
        layer, module, part = match[1], MODULES[match[2]], match[3].lower()
        name = f"blk.{layer}.{module}.weight"
        # lora_a is (rank, inputs of the base), lora_b (outputs of the base, rank).
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


def _number(header: Mapping[str, Value], path: Path, key: str) -> int:
    if key not in header:
        raise PackError(f"{path} has no {key}; restore the file")
    return int(header[key])


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
