"""The metadata of an exported verifier, read without loading the model.

An ONNX file is one protobuf message. This module walks its top-level fields and skips all but the metadata
(protobuf encoding guide, "Message Structure"; onnx.proto, ``ModelProto.metadata_props``).
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edge_tts.errors import PackError

VERIFIER_FORMAT = "decoder-past-1"
"""What the metadata's ``format`` says of a graph with inputs input_ids, attention_mask, position_ids and
past_key_values.*, and outputs scores and, for the new tokens, present.*."""
VERIFIER_DATA = "prm.onnx.data"
"""Weights of a verifier too large for one protobuf message, beside ``prm.onnx``."""
_METADATA_PROPS = 14
_LONGEST_ENTRY = 2**20


def read_metadata(path: Path) -> dict[str, str]:
    """Custom metadata of the model at ``path``. Raises PackError where the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            entries = [_entry(content) for content in _fields(file, size)]
    except (OSError, ValueError, EOFError) as error:
        raise PackError(f"cannot read the verifier {path}: {error}; verify or reinstall the pack") from error
    return dict(entries)


def _fields(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Contents of the message's metadata fields."""
    while file.tell() < size:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _varint(file)
        elif kind == 2:
            length = _varint(file)
            if file.tell() + length > size:
                raise EOFError("it is cut short")
            if number == _METADATA_PROPS and length <= _LONGEST_ENTRY:
                yield file.read(length)
            else:
                file.seek(length, 1)
        else:
            raise ValueError("it is no ONNX file")


def _entry(content: bytes) -> tuple[str, str]:
    """Key and value of one entry: its first and second field."""
    parts, file = {1: "", 2: ""}, BytesIO(content)
    while file.tell() < len(content):
        number = _varint(file) >> 3
        parts[number] = file.read(_varint(file)).decode()
    return parts[1], parts[2]


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError("it is cut short")
        value |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return value
        if shift > 63:
            raise ValueError("it is no ONNX file")
