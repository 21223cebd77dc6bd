"""A Qwen2 checkpoint as llama.cpp reads it, in float32."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import transformers


def write_qwen_gguf(checkpoint: Path, path: Path) -> Path:
    """Write the model in the folder ``checkpoint`` to ``path``; its output matrix is the embeddings."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    spec = json.loads((checkpoint / "tokenizer.json").read_text())
    vocabulary = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].__getitem__)
    special = {token["content"] for token in spec["added_tokens"]}
    writer = gguf.GGUFWriter(path, arch="qwen2")
    layers = model.config.num_hidden_layers
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(model.config.hidden_size)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(model.config.num_attention_heads)
    writer.add_head_count_kv(model.config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(model.config.rope_theta)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary]
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_token_merges([" ".join(pair) for pair in spec["model"]["merges"]])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, layers)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(str(names.get_name(name, (".weight", ".bias"))), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
