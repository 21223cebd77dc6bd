"""LoRA trained through its own quantisation, so that training optimises the weights that ship.

A shipped policy is Q4_0(base + Q4_0(B) Q4_0(A)): two roundings that plain fine-tuning does not see. Here every forward
pass includes both, and gradients pass through the rounding unchanged (the straight-through estimator, Bengio et al.
2013; for LoRA under quantisation: LR-QAT, Bondarenko et al. 2024).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_tts.errors import InputError
from edge_tts.export.adapter import MODULES, unpermute
from edge_tts.packs.merge_adapter import read_adapter

BLOCK = 32


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return round_q4_0(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _rounded(weight: Tensor) -> Tensor:
    rounded: Tensor = _Rounding.apply(weight)  # type: ignore[no-untyped-call]
    return rounded


def round_q4_0(weight: Tensor) -> Tensor:
    """The values of a matrix (rows, columns) after storing it as Q4_0; columns must be whole blocks of 32.

    As ggml's ``quantize_row_q4_0_ref``: the entry of largest magnitude in a block becomes -8.
    """
    blocks = weight.reshape(-1, BLOCK)
    high, low = blocks.amax(1, keepdim=True), blocks.amin(1, keepdim=True)
    scale = torch.where(high > -low, high, low) / -8
    inverse = torch.where(scale == 0, 0, 1 / scale)
    levels = (blocks * inverse).add_(8.5).floor_().clamp_(0, 15).sub_(8)
    return levels.mul_(scale.half().float()).view_as(weight)


class QuantisedLora(nn.Module):
    """A linear layer of weight Q4_0(frozen base + Q4_0(B) Q4_0(A)), A (rank, inputs) and B (outputs, rank)."""

    def __init__(self, base: nn.Linear, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.base = base.weight.requires_grad_(False)
        self.lora_A = nn.Parameter(down)
        self.lora_B = nn.Parameter(up)

    def weight(self) -> Tensor:
        """The weight as it ships, (outputs, inputs)."""
        return _rounded(torch.addmm(self.base, _rounded(self.lora_B), _rounded(self.lora_A)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight())


def attach(model: Any, adapter: Path) -> None:
    """Replace the linear layers that a llama.cpp LoRA GGUF adapts, in place; then only its matrices are trainable.

    Raises PackError where ``adapter`` is damaged, InputError where it does not fit the model.
    """
    lora = read_adapter(adapter)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    model.requires_grad_(False)
    for module, name in MODULES.items():
        for index, layer in enumerate(model.model.layers):
            key = f"blk.{index}.{name}.weight"
            if key not in lora.up:
                raise InputError(
                    f"{adapter} does not adapt {key}; quantised training needs an adapter of all layers to start from"
                )
            up, down = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (lora.up[key], lora.down[key]))
            if name in heads:
                up = unpermute(up, heads[name])
            group, _, last = module.partition(".")
            parent = getattr(layer, group)
            root = (lora.alpha / down.shape[0]) ** 0.5
            setattr(
                parent, last, QuantisedLora(getattr(parent, last), torch.tensor(down * root), torch.tensor(up * root))
            )


def is_attached(model: Any) -> bool:
    return any(isinstance(module, QuantisedLora) for module in model.modules())


def freeze(model: Any) -> None:
    """Replace the adapted layers with plain ones that hold the rounded weights, in place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, QuantisedLora):
                plain = nn.Linear(layer.base.shape[1], layer.base.shape[0], bias=False)
                plain.weight = nn.Parameter(layer.weight().detach(), requires_grad=False)
                setattr(parent, name, plain)


def save(model: Any, out: Path) -> None:
    """Write the adapter as PEFT does, so that :func:`edge_tts.export.adapter.convert` takes it."""
    tensors = {
        f"base_model.model.{name}.weight": weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if name.endswith(("lora_A", "lora_B"))
    }
    rank = next(weight.shape[0] for name, weight in tensors.items() if "lora_A" in name)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (out / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
