"""The expected size and sha256 of a file, and how a file differs from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileRecord:
    """Size and sha256 that a manifest pins for one file."""

    bytes: int
    sha256: str
    """64 hexadecimal digits."""

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Size and sha256 of the file at ``path``. Raises OSError."""
        return cls(path.stat().st_size, sha256(path))

    def problem(self, path: Path) -> str | None:
        """How the file at ``path`` differs from this record, as one clause, or None where it does not."""
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
    """SHA-256 of a file's content, as 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
