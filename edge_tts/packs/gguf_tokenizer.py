"""The tokenizer inside a Qwen2 or SmolLM GGUF, as the ``tokenizer.json`` that a PRM made from the same model reads.

It splits text as llama.cpp does, which leaves Unicode as it is (the hub's tokenizer.json composes it first).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf

from edge_tts.errors import PackError
from edge_tts.files.gguf import open_gguf

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""The words that are split into tokens one by one (llama.cpp, llama-vocab.cpp)."""
SPLITS: Mapping[str, tuple[Mapping[str, Any], bool]] = MappingProxyType(
    {
        "qwen2": ({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}, False),
        "smollm": ({"type": "Digits", "individual_digits": True}, True),
    }
)
"""By ``tokenizer.ggml.pre``: how words are told apart, and whether GPT-2's rule does so, too."""
_SPECIAL = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)


def tokenizer_json(model: Path) -> str:
    """The text of a ``tokenizer.json``; the same for the same file, whatever versions are installed.

    Raises PackError where ``model`` is damaged or has another kind of tokenizer.
    """
    reader = open_gguf(model)

    def field(name: str) -> Any:
        found = reader.get_field(f"tokenizer.ggml.{name}")
        return None if found is None else found.contents()

    if field("model") != "gpt2" or field("pre") not in SPLITS:
        raise PackError(
            f"{model} splits text as {field('model')}/{field('pre')}, and only gpt2/{'/'.join(SPLITS)} is known here; "
            "choose another model"
        )
    tokens, kinds = field("tokens"), field("token_type")
    special = [i for i, kind in enumerate(kinds) if kind in _SPECIAL]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    split, splits_more = SPLITS[field("pre")]
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": splits_more}
    control = {i for i in special if kinds[i] == gguf.TokenType.CONTROL}
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **plain, "special": i in control} for i in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [dict(split), bytes_]},
        "post_processor": None,
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},  # an added token takes its id from here
            "merges": [merge.split(" ") for merge in field("merges")],
        },
    }
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
