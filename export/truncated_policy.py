"""The process reward model this project trains: the first layers of a policy (a causal Llama) and a scalar head.

A policy that was fine-tuned on a task has read its questions and written its steps, so its first layers know more of
them than a small encoder. The model reads the policy's own text: the prompt, then one step a line. It scores a step
after two marks that follow the line (:mod:`edge_tts.runtimes.step_marks`); with them, even a few layers do well.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaModel

from edge_tts.errors import InputError, PackError
from edge_tts.export.prm_graph import RewardModel, sizes
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

POSITIONS = 512
"""Longest question plus trace, in tokens."""
KIND = "truncated-policy"


def step_layout(tokenizer: Tokenizer) -> StepLayout:
    """The policy's format as a layout: its prompt, then each step, its delimiter and its marks, tokenised apart."""
    prompts = PromptFormat()
    end = tuple(tokenizer.encode(prompts.step_delimiter, add_special_tokens=False).ids)
    return StepLayout(prompts.prompt, "{step}", "{step}", joined=False, end=end, marked=True)


def step_encoder(tokenizer: Tokenizer) -> StepEncoder:
    """What turns questions and steps into the model's tokens."""
    return StepEncoder(step_layout(tokenizer), tokenizer, POSITIONS)


class TruncatedPolicy(nn.Module):
    """The first layers of a Llama and a linear head on their normed output; the embeddings are not trained."""

    def __init__(self, backbone: LlamaModel, frozen_layers: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.002)
        nn.init.zeros_(self.head.bias)
        for module in (backbone.embed_tokens, *backbone.layers[:frozen_layers]):
            module.requires_grad_(False)

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

    def description(self) -> dict[str, Any]:
        """What :func:`load_run` needs to rebuild the model, beside its weights; plain types."""
        config = self.backbone.config.to_dict()
        return {name: value for name, value in config.items() if isinstance(value, (str, int, float, dict, type(None)))}

    def reward_model(self, tokenizer: Tokenizer) -> RewardModel:
        """The model as any other that is exported; shares its weights."""
        layout = step_layout(tokenizer)
        return RewardModel(self.backbone, self.head, layout, sizes(self.backbone, self.head, POSITIONS), KIND).eval()


def load_run(run: Path) -> TruncatedPolicy:
    """The trained model of a run folder of :mod:`edge_tts.export.train.train_prm`, ready to score.

    Raises PackError where ``model.pt`` is damaged.
    """
    path = run / "model.pt"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        config = LlamaConfig(**saved["shape"], attn_implementation="sdpa")  # type: ignore[no-untyped-call]
        model = TruncatedPolicy(LlamaModel(config))
        model.load_state_dict(saved["weights"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise PackError(f"{path} is no trained PRM or is damaged ({error}); train it again") from error
    return model.eval()


def load_policy(
    folder: Path, kept: Sequence[int], layers: int, frozen_layers: int = 0, dropout: float = 0.0
) -> TruncatedPolicy:
    """The first ``layers`` of the Llama in ``folder``, with a new head; row i of its vocabulary is row ``kept[i]``.

    Raises InputError where the folder holds no Llama or fewer layers.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type != "llama" or not 0 <= frozen_layers < layers <= config.num_hidden_layers:
        raise InputError(
            f"{folder} is a {config.model_type} of {config.num_hidden_layers} layers; the first {layers} of a llama "
            f"were asked for, {frozen_layers} of them frozen"
        )
    config.num_hidden_layers = layers
    backbone = AutoModel.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )
    words = backbone.embed_tokens.weight.detach()[torch.tensor(kept)].clone()
    backbone.embed_tokens = nn.Embedding(len(kept), words.shape[1], _weight=words)
    # The norm was made for the last layer's output, whose channels have another scale.
    nn.init.ones_(backbone.norm.weight)
    backbone.config.update({"vocab_size": len(kept), "max_position_embeddings": POSITIONS})
    return TruncatedPolicy(backbone, frozen_layers, dropout)
