"""Files of JSON objects, one a line, that are only appended to and survive a crash."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from edge_tts.errors import InputError, ResourceError
from edge_tts.files.atomic import FULL, sync_names


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers; none where the file does not exist. ``.gz`` is unpacked.

    A last line without a line end was cut short by a crash and is skipped, and so are blank lines. Raises InputError
    for any other line that is not an object, and where the file cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as source:
            yield from _objects(source, path)
    except FileNotFoundError:
        return
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; choose another --out") from error


def _objects(source: Iterable[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(source, 1):
        if not line.endswith(b"\n"):
            return
        if line.strip():
            yield number, parse_line(line, number, path)


def parse_line(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """The JSON object in line ``number`` of ``path``. Raises InputError that names both where there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {number}: not JSON ({error}); remove the line or choose another --out"
        ) from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: not a JSON object; remove the line or choose another --out")
    return row


def dump_line(row: Mapping[str, Any]) -> bytes:
    """``row`` as one line of JSON in UTF-8, with its line end."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
    # Half of a surrogate pair has no UTF-8; the replacement for it is what JSON writes it as.
    return text.encode("utf-8", errors="backslashreplace")


class Appender:
    """Appends JSON lines to a file; they are on the disk when :meth:`add` returns.

    Opening removes a last line that a crash cut short. Raises InputError where the file cannot be opened,
    ResourceError where the disk is full or it cannot be written later; nothing of the rows of that call is left in
    the file then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Unbuffered: what a full disk refuses must not be written again when the file is closed.
            self._file = path.open("ab", buffering=0)
            if self._file.tell():
                _truncate_cut_line(path)
            self._end = self._file.seek(0, os.SEEK_END)
            sync_names(path.parent)
        except OSError as error:
            if error.errno in FULL:
                raise self._full(error) from error
            raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from error

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append all of ``rows`` in one write."""
        left = memoryview(b"".join(map(dump_line, rows)))
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise self._full(error) from error
        self._end = self._file.tell()

    def _full(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"cannot write {self._path}: {error.strerror}; free some space and run the same command again, which "
            "continues after the lines written so far"
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _truncate_cut_line(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
