"""Sizes of models, read from their files: what a manifest states so that a plan need not load anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_tts.core import PolicyShape, VerifierShape
from edge_tts.errors import InputError
from edge_tts.files.gguf import open_gguf
from edge_tts.runtimes.graph_metadata import VERIFIER_DATA, VERIFIER_FORMAT, read_metadata

WEIGHT_COPIES = {"fp32": 1.6, "fp16": 2.75, "int8": 1.9, "int4": 1.7}
"""Memory that ONNX Runtime takes on a CPU for a common model's weights, in sizes of its file: what a Qwen2 of 104M
parameters took, and 5%. Matrices are packed again for the processor, and float16 is computed in float32."""


def policy_shape(path: Path) -> PolicyShape:
    """Sizes of the GGUF at ``path``. Raises PackError for a damaged file, InputError for one without these sizes."""
    reader = open_gguf(path)
    architecture = reader.get_field("general.architecture")
    family = str(architecture.contents()) if architecture else "llama"

    def number(key: str, default: int | None = None) -> int:
        field = reader.get_field(f"{family}.{key}")
        if field is not None:
            value = field.contents()
            return int(max(value)) if isinstance(value, list) else int(value)  # a list has an entry per layer
        if default is None:
            raise InputError(f"{path} has no {family}.{key}; only decoder language models can be packed")
        return default

    sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    if "token_embd.weight" not in sizes:
        raise InputError(f"{path} has no token embeddings; only decoder language models can be packed")
    # A separate embedding is only looked up; a tied one is the output projection as well.
    looked_up = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    hidden, heads = number("embedding_length"), number("attention.head_count")
    return PolicyShape(
        file_bytes=path.stat().st_size,
        parameters=sum(sizes.values()) - looked_up,
        layers=number("block_count"),
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        hidden=hidden,
        vocabulary=sizes["token_embd.weight"] // hidden,
        trained_context=number("context_length"),
    )


def verifier_shape(path: Path) -> VerifierShape:
    """Sizes of the PRM at ``path``, from the metadata its export wrote.

    Raises PackError for a damaged file, InputError for one without that metadata.
    """
    sizes = read_metadata(path)
    beside = path.with_name(VERIFIER_DATA)
    try:
        return VerifierShape(
            file_bytes=path.stat().st_size + (beside.stat().st_size if beside.exists() else 0),
            parameters=int(sizes["parameters"]),
            layers=int(sizes["layers"]),
            hidden=int(sizes["hidden"]),
            max_tokens=int(sizes["positions"]),
            kv_bytes=_kv_bytes(sizes),
            weight_copies=WEIGHT_COPIES.get(sizes.get("quant", "")),
            vocabulary=int(sizes["vocabulary"]) if "vocabulary" in sizes else None,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} does not state its {error}; export it with `edge-reason export prm`") from error


def _kv_bytes(sizes: Mapping[str, str]) -> int | None:
    if sizes.get("format") != VERIFIER_FORMAT:
        return None
    number = 2 if sizes.get("quant") == "fp16" else 4
    return 2 * int(sizes["layers"]) * int(sizes["kv_heads"]) * int(sizes["head_dim"]) * number
