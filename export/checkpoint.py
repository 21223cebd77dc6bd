"""Where a model comes from: a Hugging Face folder or hub id, or a GGUF file; checked before work starts.

Only configuration, tokenizer files and safetensors are read. Pickled weights are refused, because loading a pickle
runs whatever code its author put in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from edge_tts.errors import InputError, PackError
from edge_tts.files.typed import typed

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


class _Config(TypedDict):
    """What is read of config.json."""

    architectures: Annotated[list[str], msgspec.Meta(min_length=1)]


class _Index(TypedDict):
    """What is read of the list of tensors of a checkpoint in several files."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, as its file's header describes it."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face folder that is complete and undamaged."""

    folder: Path
    architecture: str
    """First entry of ``architectures`` in config.json."""
    tensors: Mapping[str, Tensor]

    @property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        return sorted({tensor.file for tensor in self.tensors.values()})

    @property
    def f16_bytes(self) -> int:
        """About the size of the model as an F16 GGUF."""
        return 2 * sum(tensor.elements for tensor in self.tensors.values())

    @property
    def conversion_bytes(self) -> int:
        """Memory that converting takes on top of the interpreter: the largest tensor in float32 and in F16."""
        return 6 * max(tensor.elements for tensor in self.tensors.values())


def locate(source: str) -> Path:
    """The GGUF file or checkpoint folder ``source``; a hub id such as owner/name is downloaded first.

    The next call resumes a broken download (huggingface_hub; HF_ENDPOINT and HF_TOKEN are honoured).
    Raises InputError where there is no such file, folder or repository.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith(".gguf"):
        raise InputError(f"{source} does not exist; give a folder, a .gguf file or a hub id like owner/name")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=_HUB_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{source} is no file here and could not be downloaded from the hub ({type(error).__name__}: "
            f"{first_line(error)}); check the name and the network; the same command resumes a broken download"
        ) from error


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check the checkpoint in ``folder`` without loading it.

    Raises InputError where something is missing or unsafe, PackError where a file is damaged.
    """
    path = folder / "config.json"
    config = typed(_Config, read_config(path), str(path), InputError)
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise InputError(
            f"{folder} has no tokenizer ({', '.join(_TOKENIZERS)}); copy the one the model was trained with"
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        if pickled:
            raise InputError(
                f"{folder} has its weights as {pickled[0]} only, a pickle that can run code when it is loaded; "
                "convert it to safetensors where you trust it, with save_pretrained(safe_serialization=True)"
            )
        raise InputError(f"{folder} has no *.safetensors; the weights are missing")
    tensors = {tensor.name: tensor for file in files for tensor in read_header(file)}
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed = typed(_Index, read_config(index), str(index), InputError)
        if missing := listed["weight_map"].keys() - tensors.keys():
            raise PackError(
                f"{folder} lacks {len(missing)} tensors, {min(missing)} for one; download the missing files"
            )
    return Checkpoint(folder, config["architectures"][0], tensors)


def read_header(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file, without their values. Raises PackError where it is damaged or cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as content:
            parts = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 (not a mapping)
            return [Tensor(name, file, part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()]
    except SafetensorError as error:
        raise PackError(f"{file} is cut short or damaged ({error}); download it again") from error


def require_finite(checkpoint: Checkpoint) -> Iterator[float]:
    """Read every weight once, yielding the fraction done. Raises PackError for a tensor with NaN or infinity."""
    import torch
    from safetensors import safe_open

    done, total = 0, sum(tensor.elements for tensor in checkpoint.tensors.values())
    for file in checkpoint.files:
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 (not a mapping)
                tensor = content.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                    raise PackError(f"{file.name}, {name}: holds NaN or infinite weights; use an intact checkpoint")
                done += tensor.numel()
                yield done / total


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a model's configuration file. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give a folder that save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore the file") from error
    return typed(dict[str, Any], content, str(path), InputError)


def first_line(error: Exception) -> str:
    """The first line of an error's text; some libraries write pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
