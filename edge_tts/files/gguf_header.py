"""Reading what a GGUF says of itself, quickly: single values only.

gguf.GGUFReader builds an object for every token of the vocabulary, which takes seconds for 150 thousand of them. Here
lists are passed over. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from gguf import GGUFValueType as Kind

from edge_tts.errors import PackError

Value = str | int | float | bool

_NUMBERS = {
    Kind.UINT8: "<B",
    Kind.INT8: "<b",
    Kind.UINT16: "<H",
    Kind.INT16: "<h",
    Kind.UINT32: "<I",
    Kind.INT32: "<i",
    Kind.FLOAT32: "<f",
    Kind.BOOL: "<?",
    Kind.UINT64: "<Q",
    Kind.INT64: "<q",
    Kind.FLOAT64: "<d",
}
_LONGEST_TEXT = 2**24
_MOST_FIELDS = 2**16
_VERSIONS = (2, 3)


def read_header(path: Path) -> dict[str, Value]:
    """The single values among the metadata of the GGUF at ``path``, by key. Raises PackError for a damaged file."""
    try:
        with path.open("rb") as file:
            return _fields(file)
    except FileNotFoundError:
        raise PackError(f"{path} is missing; restore the file") from None
    except (OSError, ValueError, struct.error) as error:
        raise PackError(f"{path} is damaged and cannot be read as GGUF ({error}); restore the file") from error


def _fields(file: BinaryIO) -> dict[str, Value]:
    magic, version = file.read(4), _number(file, Kind.UINT32)
    if magic != b"GGUF" or version not in _VERSIONS:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    _number(file, Kind.UINT64)  # how many tensors follow
    count = _length(file, _MOST_FIELDS)
    found: dict[str, Value] = {}
    for _ in range(count):
        key, kind = _text(file), Kind(_number(file, Kind.UINT32))
        if kind is Kind.ARRAY:
            _pass_over(file)
        else:
            found[key] = _text(file) if kind is Kind.STRING else _number(file, kind)
    return found


def _number(file: BinaryIO, kind: Kind) -> int:
    layout = _NUMBERS[kind]
    value: int = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return value


def _length(file: BinaryIO, most: int) -> int:
    length = _number(file, Kind.UINT64)
    if length > most:
        raise ValueError(f"a length of {length}")
    return length


def _text(file: BinaryIO) -> str:
    length = _length(file, _LONGEST_TEXT)
    content = file.read(length)
    if len(content) != length:
        raise ValueError("it ends too early")
    return content.decode(errors="replace")


def _pass_over(file: BinaryIO) -> None:
    kind, count = Kind(_number(file, Kind.UINT32)), _length(file, 2**32)
    if kind is Kind.STRING:
        for _ in range(count):
            file.seek(_length(file, _LONGEST_TEXT), 1)
    elif kind is Kind.ARRAY:
        raise ValueError("it has a list of lists")
    else:
        file.seek(count * struct.calcsize(_NUMBERS[kind]), 1)
