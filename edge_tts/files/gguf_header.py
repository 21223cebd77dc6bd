"""What a GGUF says of itself and of its tensors, read in a tenth of a second.

gguf.GGUFReader builds an object for every token of the vocabulary, which takes seconds for 150 thousand of them; here
lists of texts are passed over. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import PackError

Value = str | int | float | bool

_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Layouts of number types by their code in the file."""
_STRING, _ARRAY = 8, 9
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]
_MOST_FIELDS = 2**16
_MOST_DIMENSIONS = 4
_LONGEST_LIST = 4096
"""Longer lists of numbers, such as scores of tokens, are passed over."""
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file."""

    shape: tuple[int, ...]
    """Numbers along each dimension, the innermost first."""
    bytes: int
    """Its size in the file, padding included."""

    @property
    def numbers(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors of one file."""

    values: dict[str, Value]
    """Single values by key."""
    lists: dict[str, tuple[Value, ...]]
    """Short lists of numbers by key."""
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> dict[str, Value]:
    """The single values among the metadata of the GGUF at ``path``, by key. Raises PackError for a damaged file."""
    return read_gguf(path).values


def read_gguf(path: Path) -> GgufHeader:
    """The header of the GGUF at ``path``. Raises PackError where it is missing, damaged or cut off."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content).header()
    except FileNotFoundError:
        raise PackError(f"{path} is missing; restore the file") from None
    except (OSError, ValueError, KeyError, ArithmeticError, struct.error) as error:
        raise PackError(f"{path} is damaged and cannot be read as GGUF ({error}); restore the file") from error


class _Reader:
    """A position in the file that moves on with everything that is read."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def header(self) -> GgufHeader:
        magic = self._content[:4]
        self._at = 4
        version = self._count(_U32, 2**32)
        if magic != b"GGUF" or version not in _VERSIONS:
            raise ValueError(f"it begins with {magic!r}, version {version}")
        tensors, fields = self._count(_U64, _MOST_FIELDS), self._count(_U64, _MOST_FIELDS)
        values: dict[str, Value] = {}
        lists: dict[str, tuple[Value, ...]] = {}
        for _ in range(fields):
            key, kind = self._text(), self._count(_U32, 2**32)
            if kind == _ARRAY:
                lists[key] = self._list()
            else:
                values[key] = self._text() if kind == _STRING else self._number(_NUMBERS[kind])
        return GgufHeader(values, {key: found for key, found in lists.items() if found}, self._tensors(tensors, values))

    def _tensors(self, count: int, values: dict[str, Value]) -> dict[str, TensorInfo]:
        shapes, offsets = {}, {}
        for _ in range(count):
            name = self._text()
            shapes[name] = tuple(self._count(_U64, 2**48) for _ in range(self._count(_U32, _MOST_DIMENSIONS)))
            self._number(_U32)  # its type
            offsets[name] = self._count(_U64, 2**62)
        alignment = int(values.get("general.alignment", 32))
        data = -(-self._at // alignment) * alignment
        ends = sorted([*offsets.values(), len(self._content) - data])
        if ends[-1] != len(self._content) - data:
            raise ValueError("it ends before its last tensor")
        following = dict(itertools.pairwise(ends))
        return {name: TensorInfo(shapes[name], following[offset] - offset) for name, offset in offsets.items()}

    def _number(self, layout: struct.Struct) -> Value:
        value: Value = layout.unpack_from(self._content, self._at)[0]
        self._at += layout.size
        return value

    def _count(self, layout: struct.Struct, most: int) -> int:
        value = int(self._number(layout))
        if value > most:
            raise ValueError(f"a length of {value}")
        return value

    def _text(self) -> str:
        length = self._count(_U64, len(self._content) - self._at)
        self._at += length
        if self._at > len(self._content):
            raise ValueError("it ends too early")
        return self._content[self._at - length : self._at].decode(errors="replace")

    def _list(self) -> tuple[Value, ...]:
        """Its numbers; nothing for a list of texts or a long one."""
        kind, count = self._count(_U32, 2**32), self._count(_U64, len(self._content))
        if kind == _STRING:
            self._pass_over_texts(count)
            return ()
        layout = _NUMBERS[kind]
        if count <= _LONGEST_LIST:
            return tuple(self._number(layout) for _ in range(count))
        self._at += count * layout.size
        return ()

    def _pass_over_texts(self, count: int) -> None:
        """Written out for speed: a vocabulary and its merges are 300 thousand texts."""
        at, content, length_at = self._at, self._content, _U64.unpack_from
        for _ in range(count):
            at += 8 + length_at(content, at)[0]
        self._at = at
