"""Make a policy on this machine: base GGUF + LoRA adapter -> merged, requantised GGUF.

The result has the same bytes on every machine, so the manifest pins its sha256. Products of two Q8_0
values and their sums are exact in the 53 bits of a float64, so the order in which a BLAS adds them does
not matter, and the quantiser of the ``gguf`` package is element-wise numpy. (``llama_model_quantize``
gives no such guarantee: its result depends on whether the compiler used fused multiply-add.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edge_tts.errors import PackError
from edge_tts.files.atomic import Progress, silent
from edge_tts.files.gguf import open_gguf
from edge_tts.files.integrity import FileRecord
from edge_tts.packs.manifest import QUANTISATIONS
from edge_tts.packs.vocabulary_cut import VOCABULARY_KEY, Cut

_KEPT = ("token_embd.weight", "output.weight")
"""Vocabulary matrices keep the storage type of the base: they are the most sensitive to rounding."""

_SENSITIVE = ("attn_v", "ffn_down")
"""Matrices whose rounding costs most accuracy; llama.cpp's own mixtures give them more bits, too."""


class _Written(np.ndarray[Any, Any]):
    """An array that says why it cannot be written: numpy's ``tofile`` keeps the reason to itself, or goes on."""

    def tofile(self, file: Any, *_: Any) -> None:
        file.write(np.ascontiguousarray(self).reshape(-1).view(np.uint8).data)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: weight += alpha / rank * up @ down. Its tensors are read from the file when they are used."""

    alpha: float
    down: Mapping[str, Any]
    """GGUF tensor lora_a, shape (rank, inputs), by the name of the base tensor."""
    up: Mapping[str, Any]
    """GGUF tensor lora_b, shape (outputs, rank), by the name of the base tensor."""
    vocabulary: list[int] | None = None
    """Ids of the base's tokens that the merged model keeps, ascending; None keeps all."""

    def delta(self, name: str) -> npt.NDArray[np.float64] | None:
        """The matrix to add to the base tensor ``name``, shape (outputs, inputs); None where the adapter has none."""
        if name not in self.up:
            return None
        up, down = (
            gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in (self.up[name], self.down[name])
        )
        return np.asarray(up @ down * (self.alpha / down.shape[0]))


def merge(base: Path, adapter: Path | None, out: Path, quantisation: str, progress: Progress = silent) -> FileRecord:
    """Write ``base`` with ``adapter`` merged in to ``out``, one tensor in memory at a time.

    Matrices are stored as ``quantisation``, a key of ``manifest.QUANTISATIONS``. One-dimensional tensors,
    vocabulary matrices and metadata are copied unchanged, except that tokens the adapter drops are left out.
    Raises PackError where a file is damaged or the adapter was made for another base.
    """
    progress(0.0, "reading the base model")
    reader = open_gguf(base)
    lora = read_adapter(adapter) if adapter else Adapter(1.0, {}, {})
    if unknown := set(lora.up) - {tensor.name for tensor in reader.tensors}:
        raise PackError(
            f"{adapter} adapts {min(unknown)}, which {base.name} does not have; use the base the adapter was trained on"
        )
    kept = lora.vocabulary
    *kinds, file_type = QUANTISATIONS[quantisation]
    stored = {tensor.name: _storage(tensor, *kinds) for tensor in reader.tensors}
    writer = gguf.GGUFWriter(out, arch=_text(reader, "general.architecture"))
    _copy_metadata(reader, writer, file_type, kept)
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        if kept is not None and tensor.name in _KEPT:
            shape[0] = len(kept)
        kind = stored[tensor.name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        # With a dtype other than uint8 the writer takes the shape in elements, not in bytes.
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), math.prod(shape) // block * size, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        reader.fields.clear()  # as Python objects the vocabulary takes more memory than any tensor
        writer.kv_data.clear()
        for index, tensor in enumerate(reader.tensors):
            progress(index / len(reader.tensors), "merging and quantising the policy")
            merged = _merged(tensor, lora.delta(tensor.name), stored[tensor.name])
            whole = merged if kept is None or tensor.name not in _KEPT else merged[kept]
            writer.write_tensor_data(whole.view(_Written))
    finally:
        writer.close()
    return FileRecord.of(out)


def read_adapter(path: Path) -> Adapter:
    """Read a llama.cpp LoRA adapter. Raises PackError where the file is damaged or not an adapter."""
    reader = open_gguf(path)
    alpha = _contents(reader, "adapter.lora.alpha")
    if alpha is None:
        raise PackError(
            f"{path} is not a LoRA adapter: it has no adapter.lora.alpha; use a file made by edge_tts.export.adapter"
        )
    parts: dict[str, dict[str, Any]] = {"lora_a": {}, "lora_b": {}}
    for tensor in reader.tensors:
        name, _, part = tensor.name.rpartition(".")
        parts.setdefault(part, {})[name] = tensor
    down, up, *others = parts.values()
    kept = _contents(reader, VOCABULARY_KEY)
    if others or set(down) != set(up):
        problem = "its tensors are not pairs of lora_a and lora_b"
    elif not isinstance(alpha, float) or not math.isfinite(alpha):
        problem = f"adapter.lora.alpha is {alpha!r}"
    elif wrong := next((name for name in up if not _is_pair(down[name], up[name])), None):
        problem = f"the two matrices for {wrong} do not fit together"
    elif kept is not None and not (isinstance(kept, list) and all(isinstance(token, int) for token in kept)):
        problem = f"{VOCABULARY_KEY} is no list of tokens"
    else:
        return Adapter(alpha, down, up, kept)
    raise PackError(f"{path} is damaged: {problem}; use a file made by edge_tts.export.adapter")


def _contents(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return field.contents() if field else None


def _is_pair(down: Any, up: Any) -> bool:
    """Whether two tensors are matrices of one rank, at least 1, stored as floats or in blocks."""
    return len(down.shape) == len(up.shape) == 2 and down.shape[1] == up.shape[0] > 0


def _merged(tensor: Any, delta: npt.NDArray[np.float64] | None, kind: Any) -> npt.NDArray[Any]:
    if not _requantised(tensor):
        return np.asarray(tensor.data)
    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if delta is not None:
        if delta.shape != weight.shape:
            raise PackError(
                f"the adapter changes {tensor.name} as a matrix of {delta.shape}, and in the base it is one of "
                f"{weight.shape}; use the base the adapter was trained on"
            )
        weight = (weight + delta).astype(np.float32)
    return np.asarray(gguf.quants.quantize(weight, kind))


def _requantised(tensor: Any) -> bool:
    return len(tensor.shape) == 2 and tensor.name not in _KEPT


def _storage(tensor: Any, usual: str, sensitive: str) -> Any:
    if not _requantised(tensor):
        return tensor.tensor_type
    name = tensor.name.split(".")[-2]
    return gguf.GGMLQuantizationType[sensitive if name in _SENSITIVE else usual]


def _copy_metadata(reader: Any, writer: Any, file_type: int, kept: list[int] | None) -> None:
    cut = None if kept is None else Cut(kept, reader.get_field("tokenizer.ggml.tokens").contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":  # the writer adds these itself
            continue
        value = file_type if name == "general.file_type" else field.contents()
        if cut:
            value = cut.metadata(name, value)
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], element)


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return str(field.contents()) if field else ""
