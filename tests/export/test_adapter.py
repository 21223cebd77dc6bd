"""PEFT adapter -> llama.cpp adapter: the same logits as transformers with PEFT."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import standin
import torch
from native_logits import logits
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from edge_tts.errors import InputError
from edge_tts.export.adapter import convert, permute
from edge_tts.packs.base_model import SMOLLM2_135M, locate
from edge_tts.packs.merge_adapter import merge
from edge_tts.reasoning.prompts import PromptFormat

TEXT = PromptFormat().render("Tom has 3 apples and buys 4 more. How many has he?") + "3+4=7\n#### 7<|im_end|>"


def test_logits_agree_with_transformers_and_peft(smollm: tuple[Any, Any], tmp_path: Path) -> None:
    base = locate(SMOLLM2_135M)
    model, tokenizer = deepcopy(smollm[0]), smollm[1]
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    with torch.no_grad():
        without = model(torch.tensor([ids])).logits[0].numpy()
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        layers = list(range(20, 30))
        lora = LoraConfig(r=32, lora_alpha=64, target_modules=modules, layers_to_transform=layers)
        torch.manual_seed(0)  # of lora_A
        adapted = get_peft_model(model, lora).eval()
        generator = torch.Generator().manual_seed(0)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        expected = adapted(torch.tensor([ids])).logits[0].numpy()
    adapted.save_pretrained(str(tmp_path / "peft"))
    convert(tmp_path / "peft", base, tmp_path / "adapter.gguf", "Q8_0")
    merge(base, None, tmp_path / "base-f16.gguf", "F16")
    found = logits(tmp_path / "base-f16.gguf", ids, tmp_path / "adapter.gguf")
    effect = np.sqrt(np.mean((expected - without) ** 2))
    error = np.sqrt(np.mean((expected - found) ** 2))
    assert effect > 1.5  # the adapter does something that could be got wrong
    assert error < 0.05 * effect
    # Another first token is a near tie: processors round Q8_0 products differently.
    lost = expected.max(axis=1) - np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert lost.max() < 0.1 * effect


def test_permute_puts_rotated_rows_side_by_side() -> None:
    heads, half = 3, 4
    rows = np.arange(heads * 2 * half)[:, None]
    found = permute(rows, heads)[:, 0]
    for head in range(heads):
        first = head * 2 * half
        for i in range(half):
            assert found[first + 2 * i] == first + i
            assert found[first + 2 * i + 1] == first + half + i


@pytest.mark.parametrize(
    ("rank", "storage", "stored", "tolerance"),
    [(2, "Q8_0", "F16", 0.02), (32, "Q8_0", "Q8_0", 0.02), (32, "Q4_0", "Q4_0", 0.4)],
)
def test_tensors_and_metadata(rank: int, storage: str, stored: str, tolerance: float, tmp_path: Path) -> None:
    standin.write_base(tmp_path / "base.gguf")
    weights = standin.write_peft(tmp_path / "peft", rank)
    convert(tmp_path / "peft", tmp_path / "base.gguf", tmp_path / "adapter.gguf", storage)
    reader = gguf.GGUFReader(tmp_path / "adapter.gguf")
    values = {key: reader.get_field(key).contents() for key in reader.fields if not key.startswith("GGUF")}
    assert values == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 2.0 * rank,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {f"blk.0.{m}.weight.lora_{p}" for m in ("attn_q", "ffn_down") for p in "ab"}
    for part, side in (("a", "A"), ("b", "B")):
        tensor = tensors[f"blk.0.ffn_down.weight.lora_{part}"]
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        wanted = weights[f"base_model.model.model.layers.0.mlp.down_proj.lora_{side}.weight"]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < tolerance
    assert tensors["blk.0.attn_q.weight.lora_b"].tensor_type.name == stored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is set"),
        ({"alpha_pattern": {"x": 1}}, "alpha_pattern is set"),
    ],
)
def test_adapters_the_format_cannot_hold(change: dict[str, object], message: str, tmp_path: Path) -> None:
    standin.write_base(tmp_path / "base.gguf")
    standin.write_peft(tmp_path / "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "peft", tmp_path / "base.gguf", tmp_path / "adapter.gguf")


def test_adapter_of_another_base(tmp_path: Path) -> None:
    standin.write_base(tmp_path / "base.gguf")
    weights = standin.write_peft(tmp_path / "peft")
    assert load_file(tmp_path / "peft" / "adapter_model.safetensors").keys() == weights.keys()
    moved = {key.replace("layers.0", "layers.7"): value for key, value in weights.items()}
    save_file(moved, tmp_path / "peft" / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"layers\.7.*does not fit base\.gguf"):
        convert(tmp_path / "peft", tmp_path / "base.gguf", tmp_path / "adapter.gguf")
