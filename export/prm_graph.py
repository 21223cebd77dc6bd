"""A Hugging Face process reward model as an ONNX graph that gives every token position one score in [0, 1].

Every head comes down to one logit: the softmax of two classes (or of the tokens "+" and "-") is the
sigmoid of their difference, so one row is kept of two, and nothing else of a vocabulary projection.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from edge_tts.errors import InputError, PackError
from edge_tts.export.checkpoint import open_checkpoint
from edge_tts.export.heads import Head, onnx_config_class
from edge_tts.export.prm_quantise import quantise_graph
from edge_tts.runtimes.onnx_graph import DECODER_FORMAT, ENCODER_FORMAT
from edge_tts.runtimes.step_layout import StepLayout

Quant = Literal["fp32", "fp16", "int8", "int4"]
OPSET = 17
MAX_PROTO_BYTES = 1_900_000_000
"""Weights beyond this go into a file beside the model: a protobuf message ends at 2 GiB."""


@dataclass(frozen=True)
class PrmSizes:
    """What a runtime has to know of the graph."""

    layers: int
    hidden: int
    kv_heads: int
    head_dim: int
    positions: int
    """Longest question plus trace, in tokens."""
    vocabulary: int
    """Entries of the tokenizer the embeddings are for."""
    parameters: int
    """Weights that take part in a token's forward pass; embedding tables are looked up, not multiplied."""


class StepReward(nn.Module):
    """A transformers model and a reward head of one logit."""

    def __init__(self, backbone: Any, head: nn.Module, layout: StepLayout, sizes: PrmSizes, kind: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.layout = layout
        self.sizes = sizes
        self.kind = kind
        self.config = backbone.config  # where optimum's exporter looks for it

    @property
    def linears(self) -> int:
        """Matrix products with weights of more than one column, which quantisation has to find."""
        return sum(isinstance(m, nn.Linear) and m.out_features > 1 for m in self.modules())


class DecoderReward(StepReward):
    """A causal model: a token's score depends on what is before it only."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: Any = None
    ) -> dict[str, Any]:
        """ids and positions (B, T), mask (B, P + T), past of P tokens -> scores (B, T), keys and values of the T.

        The past may be padded where the mask is 0.
        """
        out = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=True,
        )
        # Only what is new leaves the graph: whoever runs it has the past already.
        new = input_ids.shape[1]
        pairs = [(key[:, :, -new:], value[:, :, -new:]) for key, value in out.past_key_values.to_legacy_cache()]
        return {"scores": _score(self.head(out.last_hidden_state)), "past_key_values": pairs}


class EncoderReward(StepReward):
    """A bidirectional model: its own token classifier, cut down to one logit, is part of the backbone."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """ids and mask (B, T) -> scores (B, T)."""
        return {"scores": _score(self.backbone(input_ids=input_ids, attention_mask=attention_mask).logits)}


def _score(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits.float()).squeeze(-1)


def load(folder: Path, head: Head) -> StepReward:
    """The model in ``folder`` with its ``head``, in float32. No code of the checkpoint is run.

    Raises InputError for a type of model that cannot be exported, PackError for weights that are
    incomplete or not finite.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

    if head.layout is None:
        raise InputError(f"{folder} is a training run of this project; edge_tts.export.prm exports it")
    checkpoint = open_checkpoint(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        decoder = onnx_config_class(config.model_type)[1]
        positions = _make_static(config)
        model, info = (AutoModel if decoder else AutoModelForTokenClassification).from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"transformers cannot load {folder}: {_first_line(error)}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise PackError(f"{folder} lacks {len(missing)} tensors of its architecture, {missing[0]} for one")
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise PackError(f"{folder}, {name}: holds NaN or infinite weights; use an intact checkpoint")
    weights = {name: _read(checkpoint.tensors[name].file, name, head.candidates) for name in head.tensors}
    if any(not bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise PackError(f"{folder}: its reward head {head.tensors[0]} holds NaN or infinite weights")
    logit = _logit(head, list(weights.values()))
    if decoder:
        return DecoderReward(model, logit, head.layout, _sizes(model, logit, positions), head.kind).eval()
    name = head.tensors[0].rpartition(".")[0]
    model.set_submodule(name, logit)
    nothing, positions = nn.Identity(), _table_positions(model, positions)
    return EncoderReward(model, nothing, head.layout, _sizes(model, nothing, positions), head.kind).eval()


def _make_static(config: Any) -> int:
    """Take out of ``config`` what a traced graph cannot do; the positions up to which that changes nothing."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) in ("dynamic", "longrope"):
        raise InputError(f"rotary embeddings that change with the length ({scaling}) cannot be exported to ONNX")
    # A window does nothing to sequences that fit into it.
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        windowed = "sliding_attention" in kinds
        config.layer_types = ["full_attention"] * len(kinds)
    else:
        windowed = window is not None and getattr(config, "use_sliding_window", True)
        config.sliding_window = None
    if windowed and window:
        positions = min(positions, window)
    return positions


def _table_positions(model: nn.Module, positions: int) -> int:
    """``positions`` less those that RoBERTa's descendants keep for padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return positions - module.padding_idx - 1
    return positions


def _sizes(model: Any, head: nn.Module, positions: int) -> PrmSizes:
    config = model.config
    heads = config.num_attention_heads
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    return PrmSizes(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        positions=positions,
        vocabulary=config.vocab_size,
        parameters=sum(p.numel() for part in (model, head) for p in part.parameters()) - tables,
    )


def _read(file: Path, name: str, rows: tuple[int, int] | None) -> Tensor:
    """One tensor in float32; of a vocabulary projection, its ``rows`` for "+" and "-" only, as classes 1 and 0."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        if rows is None:
            return content.get_tensor(name).float()  # type: ignore[no-any-return]
        part = content.get_slice(name)
        good, bad = (part[row : row + 1] for row in rows)
        return torch.cat([bad, good]).float()


def _logit(head: Head, weights: list[Tensor]) -> nn.Module:
    """The head as a module from hidden states to one logit."""
    if head.kind == "two-class":
        inner = [w for name, w in zip(head.tensors, weights, strict=True) if "score.0" in name]
        outer = [w for name, w in zip(head.tensors, weights, strict=True) if "score.2" in name]
        return nn.Sequential(_linear(*inner), nn.ReLU(), _linear(*map(_difference, outer)))
    return _linear(*map(_difference, weights))


def _difference(weight: Tensor) -> Tensor:
    """Class 1 less class 0, where there are two."""
    return weight[1:] - weight[:1] if weight.shape[0] == 2 else weight


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data = weight.contiguous()
    if bias is not None:
        linear.bias.data = bias.contiguous()
    return linear


def export_graph(model: StepReward, path: Path, half: bool = False) -> None:
    """Write ``model`` as ONNX, in float32 or, with ``half``, float16 (which changes the model); no metadata yet.

    Raises InputError where the architecture cannot be traced.
    """
    from optimum.exporters.onnx.convert import export_pytorch

    if half:
        for weight in model.parameters():  # not the buffers: rotary frequencies stay float32
            weight.data = weight.data.half()
    base, decoder = onnx_config_class(model.config.model_type)
    options = {"use_past": True, "use_past_in_inputs": True} if decoder else {}
    task = "text-generation" if decoder else "token-classification"
    config = _onnx_config(base, decoder)(model.config, task=task, float_dtype="fp16" if half else "fp32", **options)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the TorchScript exporter warns of its successor and of traced constants
        try:
            export_pytorch(model, config, OPSET, path)
        except Exception as error:  # whatever an architecture's code raises while it is traced
            raise InputError(
                f"optimum cannot export this {model.config.model_type} model to ONNX "
                f"({type(error).__name__}: {_first_line(error)}); use a PRM of another architecture"
            ) from error


def _onnx_config(base: Any, decoder: bool) -> Callable[..., Any]:
    """optimum's configuration of the architecture, with this project's inputs and outputs."""
    rows = {0: "batch_size", 1: "sequence_length"}

    def inputs(self: Any) -> dict[str, dict[int, str]]:
        if not decoder:
            return {"input_ids": rows, "attention_mask": rows}
        mask = {0: "batch_size", 1: "past_sequence_length + sequence_length"}
        wanted = {"input_ids": rows, "attention_mask": mask, "position_ids": rows}
        self.add_past_key_values(wanted, direction="inputs")
        return wanted

    def outputs(self: Any) -> dict[str, dict[int, str]]:
        wanted = {"scores": rows}
        for i in range(self._normalized_config.num_layers if decoder else 0):
            for part in ("key", "value"):
                wanted[f"present.{i}.{part}"] = {0: "batch_size", 2: "sequence_length"}
        return wanted

    made: Callable[..., Any] = type(
        "StepRewardConfig", (base,), {"inputs": property(inputs), "outputs": property(outputs)}
    )
    return made


def write(model: StepReward, tokenizer: Path, folder: Path, quant: Quant) -> list[Path]:
    """Write ``prm.onnx`` with its metadata into ``folder``; the files it consists of (large weights lie beside it).

    ``model`` is float16 afterwards where ``quant`` is fp16. Raises PackError where quantisation did
    not take.
    """
    target, source = folder / "prm.onnx", folder / "float.onnx"
    export_graph(model, source, half=quant == "fp16")
    graph = onnx.load(source)
    for left in folder.glob("float.onnx*"):
        left.unlink()
    quantise_graph(graph, quant, model.linears)
    onnx.helper.set_model_props(graph, _metadata(model, tokenizer, quant))
    return save(graph, target)


def _metadata(model: StepReward, tokenizer: Path, quant: Quant) -> dict[str, str]:
    return {
        "format": DECODER_FORMAT if isinstance(model, DecoderReward) else ENCODER_FORMAT,
        "head": model.kind,
        "layout": model.layout.to_json(),
        "quant": quant,
        **{name: str(value) for name, value in vars(model.sizes).items()},
        "tokenizer_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
    }


def save(graph: onnx.ModelProto, path: Path, limit: int = MAX_PROTO_BYTES) -> list[Path]:
    """Write ``graph``; weights of more than ``limit`` bytes together go into a file beside it."""
    beside = path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)
    if sum(len(t.raw_data) for t in graph.graph.initializer) <= limit:
        onnx.save(graph, path)
        return [path]
    onnx.save(graph, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)
    return [path, beside]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
