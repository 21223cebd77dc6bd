"""A chat model of random weights that llama.cpp loads in milliseconds: for what does not depend on its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN, HEADS, INNER, CONTEXT = 32, 2, 48, 2048
LONG_CONTEXT = 8192
"""In bytes, the prompt of a program is long."""
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PIECES = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\N{LOWER ONE EIGHTH BLOCK}")
"""What spells any text: bytes, and the space."""
BLOCK = {
    **{f"blk.0.attn_{name}": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")},
    "blk.0.ffn_gate": (INNER, HIDDEN),
    "blk.0.ffn_up": (INNER, HIDDEN),
    "blk.0.ffn_down": (HIDDEN, INNER),
}
CERTAIN = 4.0
"""Of an output row: a logit of 4 x sqrt(HIDDEN) = 23 against 0."""


def write_tiny_model(path: Path) -> Path:
    """Write one block of Llama with a vocabulary of single bytes to ``path``."""
    rng = np.random.default_rng(0)
    tokens = [*PIECES, "a", "1"]
    shapes = {"token_embd": (len(tokens), HIDDEN), "output": (len(tokens), HIDDEN), **BLOCK}
    tensors = {name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}
    return _write(path, tokens, tensors)


def write_speaking_model(path: Path, says: Sequence[Sequence[str]]) -> Path:
    """The same with weights that are a Markov chain: to any prompt it says one text of each of ``says``, in order, and
    ends. Texts of one place are equally likely, and each is one token."""
    texts = [text.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}") for texts in says for text in texts]
    tokens = [*PIECES, *texts]
    places = [place for place, texts in enumerate(says, 1) for _ in texts]
    embeddings, output = np.zeros((2, len(tokens), HIDDEN), np.float32)
    embeddings[:, 0] = 1  # the prompt, whatever it ends in
    output[2, len(says)] = CERTAIN
    for token, place in enumerate(places, len(PIECES)):
        embeddings[token] = np.eye(HIDDEN)[place]
        output[token, place - 1] = CERTAIN
    silent = {name: np.zeros(shape, np.float32) for name, shape in BLOCK.items()}
    return _write(path, tokens, {"token_embd": embeddings, "output": output, **silent}, LONG_CONTEXT)


def _write(
    path: Path, tokens: Sequence[str], tensors: Mapping[str, NDArray[np.float32]], context: int = CONTEXT
) -> Path:
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (len(tokens) - len(PIECES) + 1)
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
