"""What a file must be: its size and sha256, and one sentence when it is something else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileRecord:
    """Size and digest a manifest pins for one file."""

    bytes: int
    sha256: str
    """64 hexadecimal digits."""

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """The record of the file at ``path`` as it is now. Raises OSError."""
        return cls(path.stat().st_size, sha256(path))

    def problem(self, path: Path) -> str | None:
        """One clause on how ``path`` differs from this record, or None where it is the same."""
        if not path.is_file():
            return "is missing"
        try:
            found = FileRecord.of(path)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if found.bytes < self.bytes:
            return f"is truncated: {found.bytes} of {self.bytes} bytes (sha256 {found.sha256}, expected {self.sha256})"
        if found != self:
            return f"has sha256 {found.sha256} instead of {self.sha256}"
        return None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
