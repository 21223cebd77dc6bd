"""Exported graphs give the scores each family's own recipe gives in PyTorch, and quantisation is proven."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import standin
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from prm_checkpoints import OTHER, QUESTION, TRACE, TRACES
from prm_recipes import RECIPES
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from edge_tts.errors import InputError, PackError
from edge_tts.export import prm_graph
from edge_tts.export.graph_quantisation import BLOCK, Quant, pack_blocks, quantise_graph
from edge_tts.export.reward_heads import recognise
from edge_tts.packs.build import PackFiles, PackSettings, build_pack
from edge_tts.planning.shapes import WEIGHT_COPIES, verifier_shape
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx_verifier import OnnxVerifier

Exported = Callable[[str, Quant], Path]
TOLERANCE: dict[Quant, float] = {"fp32": 2e-4, "fp16": 0.02, "int8": 0.1, "int4": 0.8}
"""Random weights of standard deviation 0.2 make scores far more sensitive than trained ones are."""


def scored(model: Path, tokenizer: Path) -> list[tuple[float, ...]]:
    """The test traces' scores by the exported ``model``."""
    verifier = OnnxVerifier(model, tokenizer, "cpu", threads=1)
    return [s.scores for s in [*verifier.score(QUESTION, TRACES), *verifier.score(OTHER, TRACES[:1])]]


@torch.no_grad()
def recipe_scores(family: str, checkpoint: Path) -> list[list[float]]:
    pairs = [*((QUESTION, steps) for steps in TRACES), (OTHER, TRACE)]
    return [RECIPES[family](checkpoint, question, steps) if steps else [] for question, steps in pairs]


@pytest.mark.parametrize("family", RECIPES)
def test_scores_are_those_of_the_familys_own_recipe(
    family: str, checkpoints: dict[str, Path], exported: Exported
) -> None:
    wanted = recipe_scores(family, checkpoints[family])
    assert len({round(score, 3) for scores in wanted for score in scores}) > 5  # steps are told apart at all
    quants: list[Quant] = ["fp32"] if family in ("two-class", "value") else ["fp32", "fp16", "int8"]
    for quant in quants:
        found = scored(exported(family, quant) / "prm.onnx", checkpoints[family] / "tokenizer.json")
        for got, exact in zip(found, wanted, strict=True):
            assert list(got) == pytest.approx(exact, abs=TOLERANCE[quant]), quant


def test_every_quantisation_changes_size_and_operators(checkpoints: dict[str, Path], exported: Exported) -> None:
    wanted = recipe_scores("step-token", checkpoints["step-token"])
    sizes, counts = {}, {}
    quants: tuple[Quant, ...] = ("fp32", "fp16", "int8", "int4")
    for quant in quants:
        folder = exported("step-token", quant)
        got = scored(folder / "prm.onnx", checkpoints["step-token"] / "tokenizer.json")
        assert list(got[0]) == pytest.approx(wanted[0], abs=TOLERANCE[quant])
        graph = onnx.load(folder / "prm.onnx")
        onnx.checker.check_model(graph, skip_opset_compatibility_check=True)
        sizes[quant] = sum(len(t.raw_data) for t in graph.graph.initializer)
        counts[quant] = [sum(n.op_type == op for n in graph.graph.node) for op in ("MatMulInteger", "MatMulNBits")]
        assert [p.name for p in folder.iterdir()] == ["prm.onnx"]
        meta = read_metadata(folder / "prm.onnx")
        assert meta["quant"] == quant
        assert meta == {p.key: p.value for p in graph.metadata_props}
    assert counts == {"fp32": [0, 0], "fp16": [0, 0], "int8": [14, 0], "int4": [0, 14]}
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    assert sizes["int4"] < sizes["int8"] < 0.4 * sizes["fp32"]


def test_only_two_rows_of_the_vocabulary_projection_are_kept(checkpoints: dict[str, Path], exported: Exported) -> None:
    path = exported("step-token", "fp32") / "prm.onnx"
    graph = onnx.load(path).graph
    vocabulary = Tokenizer.from_file(str(checkpoints["step-token"] / "tokenizer.json")).get_vocab_size()
    wide = [tuple(t.dims) for t in graph.initializer if vocabulary in t.dims]
    assert wide == [(vocabulary, 64)]  # the embedding
    meta = read_metadata(path)
    assert meta["head"] == "step-token"
    assert (meta["layers"], meta["kv_heads"], meta["head_dim"], meta["positions"]) == ("2", "2", "16", "400")
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 256 + 2 * 64
    assert int(meta["parameters"]) == 2 * layer + 64 + 64
    assert [i.name for i in graph.input][:3] == ["input_ids", "attention_mask", "position_ids"]
    assert [i.name for i in graph.input][3:] == [f"past_key_values.{i}.{p}" for i in (0, 1) for p in ("key", "value")]
    assert [o.name for o in graph.output] == ["scores", *(f"present.{i}.{p}" for i in (0, 1) for p in ("key", "value"))]


def test_int4_blocks_are_what_onnx_runtime_reads() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(72, 5)).astype(np.float32)  # not whole blocks
    matrix[:BLOCK, 2] = 0
    packed, scales = pack_blocks(matrix)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, -1)
    plain = ((codes.astype(np.float32) - 8) * np.repeat(scales.reshape(5, -1), BLOCK, axis=1))[:, :72].T
    assert np.abs(plain - matrix).max() <= np.abs(scales).max() + 1e-6  # half a scale, a whole one at the far end
    x = rng.normal(size=(3, 72)).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=72, N=5, bits=4, block_size=BLOCK
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 72])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])],
        [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales, "s")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    [y] = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert y == pytest.approx(x @ plain, abs=1e-4)


@pytest.mark.parametrize("quant", ["fp32", "fp16", "int8", "int4"])
def test_quantisation_that_does_not_work_is_an_error(quant: Quant) -> None:
    """A graph whose products are not MatMul nodes with constant weights, as some exporters write them."""
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(PackError, match=f"{quant} quantisation did not work: 0 .* where 1 were expected"):
        quantise_graph(model, quant, 1)


def test_weights_that_did_not_shrink_are_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = prm_graph.load(checkpoints["value"], recognise(checkpoints["value"]))
    prm_graph.export_graph(model, tmp_path / "float.onnx")
    graph = onnx.load(tmp_path / "float.onnx")
    with pytest.raises(PackError, match=r"fp16 quantisation did not work: .* weights at 100%"):
        quantise_graph(graph, "fp16", model.linears)


def test_large_weights_lie_beside_the_model(checkpoints: dict[str, Path], exported: Exported, tmp_path: Path) -> None:
    whole = exported("value", "fp32") / "prm.onnx"
    expected = scored(whole, checkpoints["value"] / "tokenizer.json")
    files = prm_graph.save(onnx.load(whole), tmp_path / "prm.onnx", limit=10_000)
    assert [file.name for file in files] == ["prm.onnx", "prm.onnx.data"]
    assert files[1].stat().st_size > 5 * files[0].stat().st_size
    verifier = OnnxVerifier(files[0], checkpoints["value"] / "tokenizer.json", "cpu", threads=1)
    assert verifier.score(QUESTION, TRACES)[0].scores == pytest.approx(expected[0])


def test_a_pack_carries_weights_that_lie_beside_the_model(
    checkpoints: dict[str, Path], exported: Exported, tmp_path: Path
) -> None:
    checkpoint, whole = checkpoints["value"], exported("value", "fp32") / "prm.onnx"
    expected = scored(whole, checkpoint / "tokenizer.json")
    (tmp_path / "moved").mkdir()
    model, beside = prm_graph.save(onnx.load(whole), tmp_path / "moved" / "prm.onnx", limit=10_000)
    standin.write_base(tmp_path / "policy.gguf")
    sources = PackFiles(tmp_path / "policy.gguf", model, checkpoint / "tokenizer.json")
    pack = build_pack(sources, PackSettings("MIT"), tmp_path / "mine")
    assert pack.verifier is not None
    assert pack.verifier.file_bytes == model.stat().st_size + beside.stat().st_size
    assert (pack.folder / "prm.onnx.data").read_bytes() == beside.read_bytes()
    assert pack.verifier_path is not None
    verifier = OnnxVerifier(pack.verifier_path, checkpoint / "tokenizer.json", "cpu", threads=1)
    assert verifier.score(QUESTION, TRACES)[0].scores == pytest.approx(expected[0])


@pytest.mark.parametrize(("family", "quant"), [("value", "fp32"), ("value", "fp16"), ("chat", "int8")])
def test_a_plan_knows_what_a_token_leaves_in_the_cache(
    family: str, quant: Quant, checkpoints: dict[str, Path], exported: Exported
) -> None:
    path = exported(family, quant) / "prm.onnx"
    shape, graph = verifier_shape(path), onnx.load(path)
    present = [node for node in graph.graph.output if node.name.startswith("present")]
    sides = [[d.dim_value for d in node.type.tensor_type.shape.dim] for node in present]
    assert shape.kv_bytes == sum(heads * size for _, heads, _, size in sides) * (2 if quant == "fp16" else 4)
    assert shape.weight_copies == WEIGHT_COPIES[quant]
    assert shape.vocabulary == Tokenizer.from_file(str(checkpoints[family] / "tokenizer.json")).get_vocab_size()


def broken(checkpoint: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["model.layers.1.mlp.up_proj.weight"][3].fill_(math.nan), "layers.1.mlp.up_proj.weight: holds NaN"),
        (lambda w: w["v_head.summary.bias"].fill_(math.inf), "v_head.summary.bias: holds NaN"),
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "lacks 1 tensors .* layers.1.mlp.up_proj.weight"),
    ],
)
def test_damaged_weights_are_pack_errors(
    change: Callable[[dict[str, torch.Tensor]], Any], message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = broken(checkpoints["value"], tmp_path, change)
    with pytest.raises(PackError, match=message):
        prm_graph.load(folder, recognise(folder))


def test_weights_of_other_shapes_are_input_errors(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"] = torch.ones(65)

    folder = broken(checkpoints["value"], tmp_path, widen)
    with pytest.raises(InputError, match="transformers cannot load"):
        prm_graph.load(folder, recognise(folder))


def test_rotary_embeddings_that_depend_on_the_length_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(checkpoints["value"], tmp_path, lambda weights: None)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.rope_scaling = {"rope_type": "dynamic", "factor": 2.0}
    config.save_pretrained(folder)
    with pytest.raises(InputError, match="change with the length"):
        prm_graph.load(folder, recognise(folder, "value"))


def test_an_architecture_that_cannot_be_traced_is_an_input_error(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prm_graph.load(checkpoints["value"], recognise(checkpoints["value"]))

    def fails(*args: Any, **kwargs: Any) -> None:
        raise IndexError("list index out of range\nin a layer")

    monkeypatch.setattr(model.backbone, "forward", fails)
    with pytest.raises(
        InputError, match=r"cannot export this qwen2 model to ONNX \(IndexError: list index out of range"
    ):
        prm_graph.export_graph(model, tmp_path / "float.onnx")
