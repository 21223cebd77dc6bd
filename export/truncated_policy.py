"""The process reward model this project trains: the first layers of a policy (a Llama or Qwen2) and a scalar head.

A policy that was fine-tuned on a task has read its questions and written its steps, so its first layers know more of
them than a small encoder. The model reads the policy's own text: the prompt, then one step a line. A pack's policy
writes equations, which are scored after two marks that follow the line (:mod:`edge_tts.runtimes.step_marks`); with
them, even a few layers do well. A chat model's steps, lines of a program with their values or paragraphs of a text,
are scored at the line break that ends them.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from edge_tts.errors import InputError, PackError
from edge_tts.export.adapter import FAMILIES
from edge_tts.export.gguf_model import load_gguf
from edge_tts.export.prm_graph import RewardModel, sizes
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

Reads = Literal["equations", "chat"]
"""What traces are made of: equations of a pack's policy, or whatever a chat model writes in ChatML."""
POSITIONS: Mapping[Reads, int] = MappingProxyType({"equations": 512, "chat": 1024})
"""Longest question plus trace, in tokens."""
CHAT_PROMPT = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
PRODUCTS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
"""A layer's matrices."""
KIND = "truncated-policy"


def step_layout(tokenizer: Tokenizer, reads: Reads = "equations") -> StepLayout:
    """A trace's text: the prompt, then each step, a line break and, for equations, its marks; all tokenised apart."""
    equations = reads == "equations"
    prompt = PromptFormat().prompt if equations else CHAT_PROMPT
    end = tuple(tokenizer.encode("\n", add_special_tokens=False).ids)
    return StepLayout(prompt, "{step}", "{step}", joined=False, end=end, marked=equations)


def step_encoder(tokenizer: Tokenizer, reads: Reads = "equations") -> StepEncoder:
    """What turns questions and steps into the model's tokens."""
    return StepEncoder(step_layout(tokenizer, reads), tokenizer, POSITIONS[reads])


class TruncatedPolicy(nn.Module):
    """The first layers of a policy and a linear head on their normed output; the embeddings are not trained."""

    def __init__(self, backbone: Any, frozen_layers: int = 0, dropout: float = 0.0, reads: Reads = "equations") -> None:
        super().__init__()
        self.reads = reads
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.002)
        nn.init.zeros_(self.head.bias)
        for module in (backbone.embed_tokens, *backbone.layers[:frozen_layers]):
            module.requires_grad_(False)

    def adapt(self, rank: int, first: int) -> None:
        """Train a change of ``rank`` to the layers from ``first`` on, not their weights (LoRA, Hu et al. 2021)."""
        from peft import LoraConfig, get_peft_model

        parts = (f"layers.{i}.{name}" for i in range(first, len(self.backbone.layers)) for name in PRODUCTS)
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(parts))
        self.backbone = get_peft_model(self.backbone, lora)

    def forward(self, ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """The logit of a score for every token, (B, T).

        ``ids`` and ``positions`` are (B, T); ``seen`` (B, T, T) is true where a token attends to another. A step's
        score is read at its last token.
        """
        out = self.backbone(
            input_ids=ids, attention_mask=seen.unsqueeze(1), position_ids=positions, use_cache=False
        ).last_hidden_state
        logits: Tensor = self.head(self.dropout(out)).squeeze(-1)
        return logits

    def _shape(self) -> dict[str, Any]:
        """The configuration in plain types."""
        config = self.backbone.config.to_dict()
        return {name: value for name, value in config.items() if isinstance(value, (str, int, float, dict, type(None)))}

    def reward_model(self, tokenizer: Tokenizer) -> RewardModel:
        """The model as any other that is exported; shares its weights."""
        layout, size = step_layout(tokenizer, self.reads), sizes(self.backbone, self.head, POSITIONS[self.reads])
        return RewardModel(self.backbone, self.head, layout, size, KIND).eval()

    def content(self) -> dict[str, Any]:
        """What :func:`load_run` rebuilds the model from; a change of low rank is merged in."""
        weights = self.state_dict()
        if hasattr(self.backbone, "merge_and_unload"):
            merged = deepcopy(self).cpu()
            merged.backbone = merged.backbone.merge_and_unload()
            weights = merged.state_dict()
        return {"shape": self._shape(), "reads": self.reads, "weights": weights}


def load_run(run: Path) -> TruncatedPolicy:
    """The trained model of a run folder of :mod:`edge_tts.export.train.train_prm`, ready to score.

    Raises PackError where ``model.pt`` is damaged.
    """
    path = run / "model.pt"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        config = AutoConfig.for_model(**saved["shape"], attn_implementation="sdpa")
        backbone = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        model = TruncatedPolicy(backbone, reads=saved.get("reads", "equations"))
        model.load_state_dict(saved["weights"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise PackError(f"{path} is no trained PRM or is damaged ({error}); train it again") from error
    return model.eval()


def load_policy(
    base: Path,
    kept: Sequence[int] | None,
    layers: int,
    frozen_layers: int = 0,
    dropout: float = 0.0,
    reads: Reads = "equations",
) -> TruncatedPolicy:
    """The first ``layers`` of the policy ``base``, a folder or a GGUF (which is dequantised), with a new head.

    Row i of its vocabulary is row ``kept[i]``; None keeps all; the first ``frozen_layers`` are not trained.
    Raises InputError for another family or too few layers.
    """
    if not 0 <= frozen_layers <= layers:
        raise InputError(f"{frozen_layers} of {layers} layers cannot be frozen; give fewer frozen layers")
    if base.suffix == ".gguf":
        backbone = load_gguf(base, layers).model
    else:
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        if config.model_type not in FAMILIES or layers > config.num_hidden_layers:
            raise InputError(
                f"{base} is a {config.model_type} of {config.num_hidden_layers} layers; the first {layers} of a "
                f"{' or '.join(FAMILIES)} were asked for"
            )
        how = {"local_files_only": True, "dtype": torch.float32, "attn_implementation": "sdpa"}
        backbone = AutoModel.from_pretrained(base, use_safetensors=True, **how)
    backbone.layers = backbone.layers[:layers]
    if kept is not None:
        words = backbone.embed_tokens.weight.detach()[torch.tensor(kept)].clone()
        backbone.embed_tokens = nn.Embedding(len(kept), words.shape[1], _weight=words)
    # The norm was made for the last layer's output, whose channels have another scale.
    nn.init.ones_(backbone.norm.weight)
    changed = {"num_hidden_layers": layers, "vocab_size": len(backbone.embed_tokens.weight)}
    backbone.config.update({**changed, "max_position_embeddings": POSITIONS[reads]})
    return TruncatedPolicy(backbone, frozen_layers, dropout, reads)
