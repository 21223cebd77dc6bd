"""Checkpoints of every family of reward models and what they are exported to, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import prm_checkpoints
import pytest

from edge_tts.export import prm_graph
from edge_tts.export.graph_quantisation import Quant
from edge_tts.export.reward_heads import recognise

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
