"""How the makers of each family of reward models score a trace: their own recipes, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from edge_tts.export.reward_heads import QWEN_SYSTEM

Recipe = Callable[[Path, str, Sequence[str]], list[float]]


def shepherd(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.MistralForCausalLM.from_pretrained(folder)
    candidates = tokenizer.encode("+ -").ids[1:]
    tag = tokenizer.encode("ки").ids[-1]
    text = question + " " + "\n".join(f"Step {n}: {step} ки" for n, step in enumerate(steps, 1))
    ids = torch.tensor([tokenizer.encode(text).ids])
    scores = model(ids).logits[:, :, candidates].softmax(-1)[:, :, 0]
    return scores[ids == tag].tolist()


def chat(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    turns: list[dict[str, str]] = []
    scores = []
    for step in steps:
        turns.append({"role": "user", "content": step if turns else f"{question} {step}"})
        turns.append({"role": "assistant", "content": "+"})
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt")
        scores.append(float(model(ids).logits[0, -3, candidates].softmax(-1)[0]))
    return scores


def two_class(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    config = transformers.Qwen2Config.from_pretrained(folder)
    model = transformers.Qwen2ForTokenClassification(config)
    model.score = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    turns = [
        {"role": "system", "content": QWEN_SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    ids = tokenizer.apply_chat_template(turns, return_tensors="pt")
    scores = model.eval()(ids).logits.softmax(-1)[:, :, 1]
    return scores[ids == tokenizer.encode("<extra_0>")[0]].tolist()


def value(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.Qwen2ForCausalLM.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    ids, ends = tokenizer.encode(tokenizer.bos_token + question + "\n"), []
    for step in steps:
        ids += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
        ends.append(len(ids) - 1)
    hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, ends]
    values = hidden @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    return values.sigmoid().squeeze(-1).tolist()


def token_decoder(folder: Path, question: str, steps: Sequence[str]) -> list[float]:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.Qwen2ForTokenClassification.from_pretrained(folder)
    ids, ends = tokenizer.encode(question), []
    for step in steps:
        ids += tokenizer.encode(step) + tokenizer.encode("\n")
        ends.append(len(ids) - 1)
    return model(torch.tensor([ids])).logits.softmax(-1)[0, ends, 1].tolist()


RECIPES: dict[str, Recipe] = {
    "step-token": shepherd,
    "chat": chat,
    "two-class": two_class,
    "value": value,
    "token-classification": token_decoder,
}
