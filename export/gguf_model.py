"""A GGUF of the Llama or Qwen2 family as a transformers model in float32, dequantised.

transformers reads a GGUF itself, but goes over the vocabulary twice and builds a table of all names for every module:
a minute for 135M parameters, where this takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edge_tts.errors import InputError, PackError
from edge_tts.export.adapter import FAMILIES, MODULES, unpermute
from edge_tts.files.gguf import open_gguf
from edge_tts.files.gguf_header import read_header

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **{name: module for module, name in MODULES.items()},
}


def load_gguf(path: Path, layers: int | None = None) -> Any:
    """The causal model in the GGUF ``path``, or its first ``layers`` layers, ready to run or to train.

    Raises InputError for another family and for too few layers, PackError where the file is missing or damaged.
    """
    header = read_header(path)
    family = str(header.get("general.architecture"))
    if family not in FAMILIES:
        raise InputError(f"{path} is a {family}; training knows {' and '.join(FAMILIES)} only, choose such a model")
    tensors = {tensor.name: tensor for tensor in open_gguf(path).tensors}
    if "rope_freqs.weight" in tensors:
        raise InputError(f"{path} scales its rotary positions, which training does not; choose another model")
    try:
        config = _config(header, family, tensors)
    except KeyError as error:
        raise PackError(f"{path} lacks {error}; restore the file") from None
    if layers is not None and not 0 <= layers <= config.num_hidden_layers:
        raise InputError(f"{path} has {config.num_hidden_layers} layers; the first {layers} were asked for")
    config.num_hidden_layers = config.num_hidden_layers if layers is None else layers
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads} if family == "llama" else {}
    weights = {}
    for name, tensor in tensors.items():
        place, block = _place(name, config.num_hidden_layers)
        if place:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            weights[place] = torch.tensor(unpermute(values, heads[block]) if block in heads else values)
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    how = {"attn_implementation": "sdpa", "dtype": torch.float32}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, **how)  # type: ignore[no-untyped-call]
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise PackError(f"{path} lacks tensors or has others ({str(error).splitlines()[-1].strip()})") from None
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its frequencies are no weights
    return model.eval()


def _config(header: dict[str, Any], family: str, tensors: dict[str, Any]) -> Any:
    """The configuration that the metadata and the shapes of tensors stand for. Raises KeyError where one is missing."""
    vocabulary = int(tensors["token_embd.weight"].shape[1])
    heads, hidden = header[f"{family}.attention.head_count"], header[f"{family}.embedding_length"]
    return AutoConfig.for_model(
        family,
        hidden_size=hidden,
        head_dim=header.get(f"{family}.attention.key_length", hidden // heads),
        intermediate_size=header[f"{family}.feed_forward_length"],
        num_hidden_layers=header[f"{family}.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=header.get(f"{family}.attention.head_count_kv", heads),
        max_position_embeddings=header[f"{family}.context_length"],
        rms_norm_eps=header[f"{family}.attention.layer_norm_rms_epsilon"],
        rope_theta=header.get(f"{family}.rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in tensors,
        vocab_size=vocabulary,
    )


def _place(name: str, layers: int) -> tuple[str, str]:
    """Where transformers has the tensor ``name``, and what llama.cpp calls it in a block; "" where nowhere."""
    block, _, kind = name.rpartition(".")
    if block in _WHOLE:
        return f"{_WHOLE[block]}.{kind}", ""
    prefix, _, part = block.rpartition(".")
    number = prefix.removeprefix("blk.")
    if not number.isdecimal() or part not in _IN_LAYER:
        raise PackError(f"training does not know the tensor {name}; choose another model")
    return (f"model.layers.{number}.{_IN_LAYER[part]}.{kind}", part) if int(number) < layers else ("", "")
