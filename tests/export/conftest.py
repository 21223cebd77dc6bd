"""Made once a session: checkpoints of every family of reward models, what they are exported to, the loaded SmolLM2."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import prm_checkpoints
import pytest
import torch
import transformers
from qwen_gguf import write_qwen_gguf

from edge_tts.export import prm_graph
from edge_tts.export.graph_quantisation import Quant
from edge_tts.export.reward_heads import recognise
from edge_tts.export.train.sft import load_base
from edge_tts.packs.base_model import SMOLLM2_135M, locate

Exported = Callable[[str, Quant], Path]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder for each family; tests must not change them."""
    return dict(prm_checkpoints.build_all(tmp_path_factory.mktemp("checkpoints")))


@pytest.fixture(scope="session")
def exported(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The folder with the ``prm.onnx`` of a family at a quantisation; tests must not change it."""

    @cache
    def export(family: str, quant: Quant) -> Path:
        folder = tmp_path_factory.mktemp(f"{family}-{quant}")
        model = prm_graph.load(checkpoints[family], recognise(checkpoints[family]))
        prm_graph.write(model, checkpoints[family] / "tokenizer.json", folder, quant)
        return folder

    return export


@pytest.fixture(scope="session")
def smollm(home: Path) -> tuple[Any, Any]:
    """SmolLM2 as a PyTorch model, and its tokenizer; loading takes long. Tests that change the model copy it."""
    return load_base(locate(SMOLLM2_135M))


@pytest.fixture(scope="session")
def qwen_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer Qwen2 with random weights, as a checkpoint."""
    torch.manual_seed(0)
    tokenizer = prm_checkpoints.byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    sizes = prm_checkpoints.DECODER | {"num_hidden_layers": 3, "tie_word_embeddings": True}
    config = transformers.Qwen2Config(**sizes, vocab_size=tokenizer.get_vocab_size())
    return prm_checkpoints.save(
        tmp_path_factory.mktemp("base") / "policy", transformers.Qwen2ForCausalLM(config), tokenizer
    )


@pytest.fixture(scope="session")
def qwen(qwen_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF."""
    return write_qwen_gguf(qwen_checkpoint, tmp_path_factory.mktemp("gguf") / "tiny.gguf")
