"""A process reward model from the first layers of a policy: a causal Llama with a scalar head.

A policy that was fine-tuned on the task has read its stories and written its steps; its first layers,
cut off from the rest, know more of them than a small encoder. The text is the policy's own: its
prompt, then one step a line. A step's score is read after two marks that follow the line
(:mod:`edge_tts.runtimes.chunks`): with them even a few layers do well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig, LlamaModel

from edge_tts.errors import InputError
from edge_tts.export import prm_graph
from edge_tts.export.scorer import Chunks, RunQuant, Scorer
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.onnx_session import load_tokenizer
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

POSITIONS = 512
"""Longest question plus trace, in tokens, as the encoder has it."""
KIND = "truncated-policy"


def step_layout(tokenizer: Tokenizer, prompts: PromptFormat | None = None) -> StepLayout:
    """The policy's format as a layout: its prompt, then each step, its delimiter and its marks, tokenised apart."""
    prompts = prompts or PromptFormat()
    end = tuple(tokenizer.encode(prompts.step_delimiter, add_special_tokens=False).ids)
    return StepLayout(prompts.prompt, "{step}", "{step}", joined=False, end=end, marked=True)


class PolicyChunks:
    """The chunks of a policy's own format."""

    def __init__(self, tokenizer: Tokenizer, positions: int) -> None:
        self._encoder = StepEncoder(step_layout(tokenizer), tokenizer, positions)

    def question(self, question: str) -> list[int]:
        return list(self._encoder.question(question))

    def step(self, question: str, steps: Sequence[str]) -> list[int]:
        return list(self._encoder.extended(question, steps, ()))


class PolicyScorer(Scorer):
    """The first layers of a Llama and a linear head on their normed output; the embeddings do not learn."""

    causal = True
    positions = POSITIONS

    def __init__(self, backbone: LlamaModel, frozen_layers: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.002)
        nn.init.zeros_(self.head.bias)
        for module in (backbone.embed_tokens, *backbone.layers[:frozen_layers]):
            module.requires_grad_(False)

    def token_logits(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        # Attention logits of a Llama differ by more than the additive mask's 50. Padding must see something.
        seen = (mask == 0) | torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)
        out = self.backbone(
            input_ids=ids, attention_mask=seen.unsqueeze(1), position_ids=positions, use_cache=False
        ).last_hidden_state
        logits: Tensor = self.head(self.dropout(out)).squeeze(-1)
        return logits

    def chunks(self, tokenizer: Any) -> Chunks:
        return PolicyChunks(tokenizer, self.positions)

    def description(self) -> dict[str, Any]:
        config = self.backbone.config.to_dict()
        return {name: value for name, value in config.items() if isinstance(value, (str, int, float, dict, type(None)))}

    def fresh(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def write(self, tokenizer: Path, folder: Path, quant: RunQuant) -> Path:
        """As for every scorer; the graph is that of a common causal reward model."""
        layout = step_layout(load_tokenizer(tokenizer))
        model = prm_graph.DecoderReward(self.backbone, self.head, layout, self._sizes(), KIND).eval()
        [path] = prm_graph.write(model, tokenizer, folder, quant)
        return path

    def _sizes(self) -> prm_graph.PrmSizes:
        config = self.backbone.config
        table = self.backbone.embed_tokens.weight.numel()
        return prm_graph.PrmSizes(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            positions=self.positions,
            vocabulary=config.vocab_size,
            parameters=sum(p.numel() for p in self.parameters()) - table,
        )


def build(description: dict[str, Any]) -> PolicyScorer:
    """A scorer of the shape that :meth:`PolicyScorer.description` told, with random weights."""
    config = LlamaConfig(**description, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    return PolicyScorer(LlamaModel(config))


def load_policy(
    folder: Path, kept: Sequence[int], layers: int, frozen_layers: int = 0, dropout: float = 0.0
) -> PolicyScorer:
    """The first ``layers`` of the Llama in ``folder``, with a fresh head; row i of its vocabulary is row ``kept[i]``.

    Raises InputError where there are not that many layers, or it is no Llama.
    """
    config = LlamaConfig.from_pretrained(folder, local_files_only=True)
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
    # Made for the last layer's output, of another scale in every channel.
    nn.init.ones_(backbone.norm.weight)
    for name, value in {"vocab_size": len(kept), "max_position_embeddings": POSITIONS}.items():
        setattr(backbone.config, name, value)
    return PolicyScorer(backbone, frozen_layers, dropout)
