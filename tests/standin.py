"""A stand-in pack, small enough to be made anew by every test: one Llama block, one-layer ONNX, ten words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from edge_tts.core import Sampling
from edge_tts.export.adapter import convert
from edge_tts.export.train.assemble_pack import Parts, build
from edge_tts.files.integrity import FileRecord
from edge_tts.packs.base_model import BaseModel
from edge_tts.packs.build import set_fits
from edge_tts.packs.manifest import Pack
from edge_tts.runtimes.graph_metadata import VERIFIER_FORMAT
from edge_tts.runtimes.step_layout import StepLayout

HIDDEN, INNER, VOCABULARY = 64, 96, 32
NAME = "tiny"


@dataclass(frozen=True)
class StandIn:
    """A built-in pack and the base file it is assembled from."""

    pack: Pack
    """As written; its folder is the built-in one."""
    base: Path


ADDRESS = "https://huggingface.co/maker/tiny-GGUF/resolve/main"


def write_base(path: Path) -> BaseModel:
    """A one-block Llama of random Q4_1 matrices, which no engine has to load."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(3)
    writer.add_token_list([f"t{i}" for i in range(VOCABULARY)])
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "ffn_up": (INNER, 64), "ffn_down": (64, INNER)}
    writer.add_tensor("token_embd.weight", rng.normal(size=(VOCABULARY, HIDDEN)).astype(np.float32))
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"blk.0.{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    record = FileRecord.of(path)
    return BaseModel(path.name, record.bytes, record.sha256, "tiny-base==1.0", f"{ADDRESS}/{path.name}")


def write_peft(folder: Path, rank: int = 2) -> dict[str, np.ndarray]:
    """A PEFT adapter of two modules with random weights; returns its tensors."""
    rng = np.random.default_rng(1)
    weights = {}
    for module, outputs, inputs in (("self_attn.q_proj", 64, 64), ("mlp.down_proj", 64, INNER)):
        key = f"base_model.model.model.layers.0.{module}"
        weights[f"{key}.lora_A.weight"] = rng.normal(size=(rank, inputs)).astype(np.float32)
        weights[f"{key}.lora_B.weight"] = rng.normal(size=(outputs, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 2 * rank, "r": rank}))
    return weights


def write_tokenizer(path: Path, words: int = 10) -> None:
    vocabulary = {"[UNK]": 0} | {f"w{i}": i for i in range(1, words)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(str(path))


def write_prm(path: Path, tokenizer: Path) -> None:
    """A PRM whose scores and cached values come from the token ids alone."""
    data = TensorProto.FLOAT
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["b", s])
        for n, s in (("input_ids", "n"), ("attention_mask", "all"), ("position_ids", "n"))
    ]
    past = [helper.make_tensor_value_info(f"past_key_values.0.{n}", data, ["b", 1, "p", 2]) for n in ("key", "value")]
    out = [helper.make_tensor_value_info("scores", data, ["b", "n"])]
    out += [helper.make_tensor_value_info(f"present.0.{n}", data, ["b", 1, "n", 2]) for n in ("key", "value")]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 3])]
    constants += [helper.make_tensor("twice", TensorProto.INT64, [4], [1, 1, 1, 2])]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["number"], to=data),
        helper.make_node("Sigmoid", ["number"], ["scores"]),
        helper.make_node("Unsqueeze", ["number", "axes"], ["wide"]),
        helper.make_node("Tile", ["wide", "twice"], ["present.0.key"]),
        helper.make_node("Tile", ["wide", "twice"], ["present.0.value"]),
    ]
    graph = helper.make_graph(nodes, "prm", [*ids, *past], out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sizes = {"layers": 1, "hidden": 2, "kv_heads": 1, "head_dim": 2, "positions": 64, "parameters": 640}
    facts = {"vocabulary": "10", "quant": "int8", "format": VERIFIER_FORMAT}
    facts |= {"layout": StepLayout("{question}", " {step}", " {step}", joined=True, begin=(1,)).to_json()}
    facts |= {"tokenizer_sha256": FileRecord.of(tokenizer).sha256}
    helper.set_model_props(model, facts | {name: str(size) for name, size in sizes.items()})
    onnx.save(model, str(path))


def write_pack(root: Path) -> StandIn:
    """The stand-in as a built-in pack in ``root/built-in/tiny``."""
    base = write_base(root / "tiny.gguf")
    write_peft(root / "peft")
    convert(root / "peft", root / "tiny.gguf", root / "adapter.gguf")
    write_tokenizer(root / "tokenizer.json")
    write_prm(root / "prm.onnx", root / "tokenizer.json")
    parts = Parts(
        root / "tiny.gguf",
        root / "adapter.gguf",
        root / "prm.onnx",
        root / "tokenizer.json",
        {"pass@1": "7.0 %"},
    )
    made = build(parts, root / "built-in" / NAME, "1.0", Sampling(), base)
    return StandIn(set_fits(made.folder, None, {"format": 1, "fits": {"equations": {}}}), root / "tiny.gguf")
