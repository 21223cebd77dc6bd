"""One tiny, randomly initialised checkpoint of each family of reward models, from its real config class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

QUESTION = "Tom has 12 boxes with 50 pens each. He sells 100 of his pens. How many pens are left?"
OTHER = "A train goes 60 miles an hour for 3 hours, then 20 miles more. How far does it go?"
TRACE = ("12*50=600", "600-100=500", "so 500 pens are left", "#### 500")
TRACES = [TRACE, TRACE[:2], ("12+50=62", "62-100=-38", "#### -38"), (), (TRACE[0], "600/100=6"), TRACE]
WORDS = [QUESTION, OTHER, *TRACE, "Step 1: ки + - ки", "system user assistant Please reason step by step"] * 4

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
SIZES = {
    **{"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 512},
    **{"num_attention_heads": 4, "initializer_range": 0.2},
}
DECODER = {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}


def byte_tokenizer(specials: list[str]) -> Tokenizer:
    """Byte-level BPE, as Qwen's and Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(_regex(), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def _regex() -> Any:
    from tokenizers import Regex

    return Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def piece_tokenizer() -> Tokenizer:
    """SentencePiece-like BPE with a word's space in front and a start token, as Mistral's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=["\n"], show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    plain = json.loads(tokenizer.to_str())
    plain["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def save(
    folder: Path,
    model: Any,
    tokenizer: Tokenizer,
    tokenizer_config: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    extra: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write ``model``, with changes to its config and more tensors, and its tokenizer."""
    model.save_pretrained(folder)
    if extra:
        weights = folder / "model.safetensors"
        save_file(load_file(weights) | extra, weights, {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config or {}))
    return folder


def shepherd(folder: Path) -> Path:
    tokenizer = piece_tokenizer()
    config = transformers.MistralConfig(**DECODER, vocab_size=tokenizer.get_vocab_size(), sliding_window=400)
    return save(folder / "math-shepherd", transformers.MistralForCausalLM(config), tokenizer)


def chat(folder: Path) -> Path:
    specials = ["<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_tokenizer(specials)
    scaling = {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 256,
    }
    size = tokenizer.get_vocab_size()
    config = transformers.LlamaConfig(**DECODER | {"tie_word_embeddings": True}, vocab_size=size, rope_scaling=scaling)
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    start = {"__type": "AddedToken", "content": "<|begin_of_text|>", **plain}
    extras = {"chat_template": LLAMA_TEMPLATE, "bos_token": start}
    return save(folder / "llama-prm", transformers.LlamaForCausalLM(config), tokenizer, extras)


def qwen_tokenizer() -> Tokenizer:
    tokenizer = byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<extra_0>", special=False, normalized=False)])
    return tokenizer


def qwen_config(tokenizer: Tokenizer) -> transformers.Qwen2Config:
    return transformers.Qwen2Config(**DECODER, vocab_size=tokenizer.get_vocab_size(), num_labels=2)


def two_class(folder: Path) -> Path:
    tokenizer = qwen_tokenizer()
    model = transformers.Qwen2ForTokenClassification(qwen_config(tokenizer))
    model.score = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    config = {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
    }
    return save(folder / "qwen-math-prm", model, tokenizer, {"chat_template": QWEN_TEMPLATE}, config)


def value(folder: Path) -> Path:
    tokenizer = qwen_tokenizer()
    head = {"v_head.summary.weight": torch.randn(1, 64), "v_head.summary.bias": torch.randn(1)}
    config = {"architectures": ["Qwen2ForPrmModel"]}
    model = transformers.Qwen2ForCausalLM(qwen_config(tokenizer))
    return save(folder / "skywork", model, tokenizer, {"bos_token": "<|endoftext|>"}, config, head)


def token_decoder(folder: Path) -> Path:
    tokenizer = qwen_tokenizer()
    return save(folder / "trl", transformers.Qwen2ForTokenClassification(qwen_config(tokenizer)), tokenizer)


FAMILIES = {
    "step-token": shepherd,
    "chat": chat,
    "two-class": two_class,
    "value": value,
    "token-classification": token_decoder,
}


def build_all(folder: Path) -> Iterator[tuple[str, Path]]:
    for i, (family, build) in enumerate(FAMILIES.items()):
        torch.manual_seed(i)
        yield family, build(folder)
