"""A process reward model as an ONNX graph that gives every token position one score in [0, 1].

Every head comes down to one logit: the softmax of two classes (or of the tokens "+" and "-") is the sigmoid of their
difference. So one row is kept of two, and nothing else of a vocabulary projection.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edge_tts.errors import InputError, PackError
from edge_tts.export.checkpoint import first_line, open_checkpoint, require_finite
from edge_tts.export.graph_quantisation import Quant, quantise_graph
from edge_tts.export.reward_heads import Head, onnx_config_class
from edge_tts.runtimes.graph_metadata import VERIFIER_DATA, VERIFIER_FORMAT
from edge_tts.runtimes.step_layout import StepLayout

OPSET = 17
MAX_PROTO_BYTES = 1_900_000_000
"""Larger weights go into a file beside the model: a protobuf message ends at 2 GiB."""


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
    """Entries of the tokenizer that the embeddings are for."""
    parameters: int
    """Weights that take part in a token's forward pass; embedding tables are looked up, not multiplied."""


class RewardModel(nn.Module):
    """A causal transformers model and a reward head of one logit: a token's score depends on what is before it only."""

    def __init__(self, backbone: Any, head: nn.Module, layout: StepLayout, sizes: PrmSizes, kind: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.layout = layout
        self.sizes = sizes
        self.kind = kind
        self.config = backbone.config  # optimum's exporter looks for it here

    @property
    def linears(self) -> int:
        """Matrix products with weights of more than one column; quantisation has to find as many."""
        return sum(isinstance(m, nn.Linear) and m.out_features > 1 for m in self.modules())

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: Any = None
    ) -> dict[str, Any]:
        """Scores (B, T) of the new tokens, and their keys and values.

        ``input_ids`` and ``position_ids`` are (B, T), ``attention_mask`` (B, P + T) after a past of P tokens, which
        may be padded where the mask is 0.
        """
        out = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=True,
        )
        # Only the new part leaves the graph: the caller has the past already.
        new = input_ids.shape[1]
        pairs = [(key[:, :, -new:], value[:, :, -new:]) for key, value in out.past_key_values.to_legacy_cache()]
        scores = torch.sigmoid(self.head(out.last_hidden_state).float()).squeeze(-1)
        return {"scores": scores, "past_key_values": pairs}


def load(folder: Path, head: Head) -> RewardModel:
    """The model in ``folder`` with its ``head``, in float32. No code of the checkpoint is run.

    Raises InputError for a type of model that cannot be exported, PackError for weights that are
    incomplete or not finite.
    """
    from transformers import AutoConfig, AutoModel

    if head.layout is None:
        raise InputError(f"{folder} is a training run; load it with edge_tts.export.truncated_policy.load_run")
    checkpoint = open_checkpoint(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        onnx_config_class(config.model_type)
        positions = _make_static(config)
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"transformers cannot load {folder}: {first_line(error)}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise PackError(f"{folder} lacks {len(missing)} tensors of its architecture, {missing[0]} for one")
    for _ in require_finite(checkpoint):
        pass
    logit = _logit(head, [_read(checkpoint.tensors[name].file, name, head.candidates) for name in head.tensors])
    return RewardModel(model, logit, head.layout, sizes(model, logit, positions), head.kind).eval()


def _make_static(config: Any) -> int:
    """Remove from ``config`` what a traced graph cannot do; returns the positions up to which that changes nothing."""
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


def sizes(model: Any, head: nn.Module, positions: int) -> PrmSizes:
    """The sizes of a transformers model with a reward head, for traces of at most ``positions`` tokens."""
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
    """One tensor in float32; of a vocabulary projection only its ``rows`` for "+" and "-", as classes 1 and 0."""
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
    """Class 1 minus class 0, where there are two."""
    return weight[1:] - weight[:1] if weight.shape[0] == 2 else weight


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data = weight.contiguous()
    if bias is not None:
        linear.bias.data = bias.contiguous()
    return linear


def export_graph(model: RewardModel, path: Path, half: bool = False) -> None:
    """Write ``model`` as ONNX without metadata, in float32 or, with ``half``, float16 (which changes the model).

    Raises InputError where the architecture cannot be traced.
    """
    from optimum.exporters.onnx.convert import export_pytorch

    if half:
        for weight in model.parameters():  # rotary frequencies are buffers and stay float32
            weight.data = weight.data.half()
    config = _onnx_config(onnx_config_class(model.config.model_type))(
        model.config,
        task="text-generation",
        float_dtype="fp16" if half else "fp32",
        use_past=True,
        use_past_in_inputs=True,
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the TorchScript exporter warns of its successor and of traced constants
        try:
            export_pytorch(model, config, OPSET, path)
        except Exception as error:  # tracing may raise anything, depending on the architecture
            raise InputError(
                f"optimum cannot export this {model.config.model_type} model to ONNX "
                f"({type(error).__name__}: {first_line(error)}); use a PRM of another architecture"
            ) from error


def _onnx_config(base: Any) -> Callable[..., Any]:
    """optimum's configuration of the architecture, with this project's inputs and outputs."""
    rows = {0: "batch_size", 1: "sequence_length"}

    def inputs(self: Any) -> dict[str, dict[int, str]]:
        mask = {0: "batch_size", 1: "past_sequence_length + sequence_length"}
        wanted = {"input_ids": rows, "attention_mask": mask, "position_ids": rows}
        self.add_past_key_values(wanted, direction="inputs")
        return wanted

    def outputs(self: Any) -> dict[str, dict[int, str]]:
        names = [f"present.{i}.{part}" for i in range(self._normalized_config.num_layers) for part in ("key", "value")]
        return {"scores": rows, **{name: {0: "batch_size", 2: "sequence_length"} for name in names}}

    made: Callable[..., Any] = type(
        "RewardModelConfig", (base,), {"inputs": property(inputs), "outputs": property(outputs)}
    )
    return made


def write(model: RewardModel, tokenizer: Path, folder: Path, quant: Quant) -> list[Path]:
    """Write ``prm.onnx`` with its metadata into ``folder``; returns its files (large weights are in one of their own).

    For fp16, the weights of ``model`` are float16 afterwards. Raises PackError where quantisation did not work.
    """
    target, source = folder / "prm.onnx", folder / "float.onnx"
    export_graph(model, source, half=quant == "fp16")
    graph = onnx.load(source)
    for left in folder.glob("float.onnx*"):
        left.unlink()
    quantise_graph(graph, quant, model.linears)
    onnx.helper.set_model_props(graph, _metadata(model, tokenizer, quant))
    return save(graph, target)


def _metadata(model: RewardModel, tokenizer: Path, quant: Quant) -> dict[str, str]:
    return {
        "format": VERIFIER_FORMAT,
        "head": model.kind,
        "layout": model.layout.to_json(),
        "quant": quant,
        **{name: str(value) for name, value in vars(model.sizes).items()},
        "tokenizer_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
    }


def save(graph: onnx.ModelProto, path: Path, limit: int = MAX_PROTO_BYTES) -> list[Path]:
    """Write ``graph`` and return its files; weights of more than ``limit`` bytes go into one beside it."""
    beside = path.with_name(VERIFIER_DATA)
    beside.unlink(missing_ok=True)
    if sum(len(t.raw_data) for t in graph.graph.initializer) <= limit:
        onnx.save(graph, path)
        return [path]
    onnx.save(graph, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)
    return [path, beside]
