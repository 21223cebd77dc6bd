"""Sizes of models, read from their files: what a manifest states so that a plan need not load anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_tts.errors import InputError
from edge_tts.files.gguf_header import TensorInfo, read_gguf
from edge_tts.runtimes.config import PolicyShape, VerifierShape
from edge_tts.runtimes.graph_metadata import VERIFIER_DATA, read_metadata

WEIGHT_COPIES = {"fp32": 1.6, "fp16": 2.75, "int8": 1.9, "int4": 1.7}
"""Memory that ONNX Runtime takes on a CPU for a common model's weights, in sizes of its file: what a Qwen2 of 104M
parameters took, and 5%. Matrices are packed again for the processor, and float16 is computed in float32."""


def policy_shape(*parts: Path) -> PolicyShape:
    """Sizes of the GGUF whose files are ``parts``, the first one first; most models have one file.

    Raises PackError for a damaged file, InputError for a file that is no decoder language model.
    """
    headers = [read_gguf(part) for part in parts]
    first, path = headers[0], parts[0]
    family = first.values.get("general.architecture", "llama")

    def number(key: str, default: int | None = None) -> int:
        # A list has a number for each layer.
        found = first.lists.get(f"{family}.{key}") or (first.values.get(f"{family}.{key}", default),)
        if found == (None,):
            raise InputError(f"{path} has no {family}.{key}; choose a decoder language model")
        return max(int(value) for value in found if value is not None)

    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    embeddings = tensors.get("token_embd.weight")
    if embeddings is None:
        raise InputError(f"{path} has no token embeddings; choose a decoder language model")
    # Where the output matrix is a tensor of its own, the embeddings are looked up and not multiplied.
    looked_up = embeddings if "output.weight" in tensors else TensorInfo((0,), 0)
    hidden, heads = number("embedding_length"), number("attention.head_count")
    return PolicyShape(
        file_bytes=sum(part.stat().st_size for part in parts),
        parameters=sum(tensor.numbers for tensor in tensors.values()) - looked_up.numbers,
        layers=number("block_count"),
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        hidden=hidden,
        vocabulary=embeddings.numbers // hidden,
        trained_context=number("context_length"),
        lookup_bytes=looked_up.bytes,
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
            vocabulary=int(sizes["vocabulary"]),
            weight_copies=WEIGHT_COPIES[sizes["quant"]],
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} does not state its {error}; export it with `edge-reason export prm`") from error


def _kv_bytes(sizes: Mapping[str, str]) -> int:
    number = 2 if sizes["quant"] == "fp16" else 4
    return 2 * int(sizes["layers"]) * int(sizes["kv_heads"]) * int(sizes["head_dim"]) * number
