"""Where the files of models lie on this machine: in the hub's own cache, or in this project's data folder.

Nothing here uses the network, and nothing reads a model's content: this runs at every start.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from edge_tts.errors import InputError
from edge_tts.files.folders import data_folder
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.sources import HubFile, WheelParts

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_USUAL = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q5_K_S", "Q6_K", "Q8_0")
"""Quantisations taken where none is named, the first found first."""
_IN_USE_SECONDS = 60

PARTS = ".parts"
"""Sub-folder for parts that were fetched and not joined yet."""


def models_folder() -> Path:
    """The folder for model files from elsewhere than the hub, one sub-folder for each catalogued name."""
    return data_folder().parent / "models"


def work_folder(model: Entry | HubFile) -> Path:
    """The folder of ``model``'s lock, its parts while they are fetched, and its file where the hub has none."""
    name = model.name if isinstance(model, Entry) else f"hub--{model.repo.replace('/', '--')}"
    return models_folder() / name


def find(model: Entry | HubFile) -> Path | None:
    """The complete file of ``model`` on this machine (the first part of a split one), or None.

    A pinned size is compared; content is checked when a file is fetched, and by ``download.pull``.
    """
    if isinstance(model, HubFile):
        return hub_cached(model)
    places = [work_folder(model) / model.file]
    places += [path for source in model.sources if isinstance(source, HubFile) and (path := hub_cached(source))]
    for path in places:
        if path.is_file() and (model.sha256 is None or path.stat().st_size == model.size):
            return path
    return None


def hub_cache() -> Path:
    """The hub's cache, where ``HF_HOME`` or ``HF_HUB_CACHE`` puts it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def hub_folder(repo: str) -> Path:
    """What the hub's cache has of one repository."""
    return hub_cache() / f"models--{repo.replace('/', '--')}"


def hub_cached(source: HubFile) -> Path | None:
    """The file of ``source`` in the hub's cache, or None; of several revisions the main one, then the newest."""
    for snapshot in _snapshots(source):
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf") if path.is_file()]
        try:
            chosen = select(names, source)
        except InputError:
            continue
        return snapshot / chosen[0]
    return None


def _snapshots(source: HubFile) -> list[Path]:
    folder = hub_folder(source.repo)
    every = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    wanted = source.revision or "main"
    reference = folder / "refs" / wanted
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else wanted
    first = [path for path in every if path.name == commit]
    return first if source.revision else first + [path for path in every if path not in first]


def select(names: Iterable[str], source: HubFile) -> tuple[str, ...]:
    """The file of a repository that ``source`` means, as the names of all its parts in order.

    Without a file in ``source`` a usual quantisation is taken. Raises InputError where there is none, where several
    fit, or where a part is missing.
    """
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.endswith(".gguf") and "mmproj" not in name.lower():
            split = _SPLIT.fullmatch(name)
            models.setdefault(split[1] + ".gguf" if split else name, []).append(name)
    if not models:
        raise InputError(f"the repository {source.repo} has no GGUF file; name one that has, often called …-GGUF")
    fitting = _fitting(models, source.file)
    if len(fitting) != 1:
        said = f"{len(fitting)} files fit" if fitting else "no file fits" if source.file else "no usual file is there"
        raise InputError(f"{said} {source}; name one as {source.repo}:FILE, of {_listed(fitting or list(models))}")
    parts = models[fitting[0]]
    if (split := _SPLIT.fullmatch(parts[0])) and len(parts) != int(split[3]):
        raise InputError(f"{source} has {len(parts)} of the {int(split[3])} parts of {fitting[0]}; name another file")
    return tuple(parts)


def _fitting(models: dict[str, list[str]], wanted: str | None) -> list[str]:
    if wanted is None:
        if len(models) == 1:
            return list(models)
        return next((found for usual in _USUAL if (found := _holding(models, usual))), [])
    if wanted.endswith(".gguf"):
        return [name for name, parts in models.items() if wanted in (name, Path(name).name, *parts)]
    return _holding(models, wanted)


def _holding(models: Iterable[str], tag: str) -> list[str]:
    whole = re.compile(rf"(?<![a-z0-9]){re.escape(tag.lower())}(?![a-z0-9_])")
    return [name for name in models if whole.search(name.lower())]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def split_parts(path: Path) -> tuple[Path, ...]:
    """All parts of the GGUF at ``path`` in order, the path alone where it is not split.

    Any part may be given. Raises InputError where a part is missing.
    """
    split = _SPLIT.fullmatch(path.name)
    if not split:
        return (path,)
    count = int(split[3])
    parts = tuple(path.with_name(f"{split[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1))
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InputError(f"{path} is one of {count} parts and {_listed(missing)} is missing; put all into one folder")
    return parts


def remove(model: Entry | HubFile) -> int:
    """Delete the files of ``model``, begun downloads included; gives the number of bytes freed.

    In the hub's cache only this model's files go, other files of the same repository stay. Call it under the lock of
    ``work_folder(model)``.
    """
    freed = 0
    if isinstance(model, Entry):
        freed += _delete(work_folder(model) / model.file) + bytes_in(work_folder(model) / PARTS)
        shutil.rmtree(work_folder(model) / PARTS, ignore_errors=True)
        sources: tuple[HubFile | WheelParts, ...] = model.sources
    else:
        sources = (model,)
    for source in sources:
        if isinstance(source, HubFile):
            while path := hub_cached(source):
                freed += sum(discard(part) for part in split_parts(path))
            freed += sum(_delete(path) for path in _begun(source))
    return freed


def partly(model: Entry | HubFile) -> int:
    """Bytes of ``model`` that a download which was cut has left."""
    sources = model.sources if isinstance(model, Entry) else (model,)
    begun = [path for source in sources if isinstance(source, HubFile) for path in _begun(source)]
    return sum(path.stat().st_size for path in begun) + bytes_in(work_folder(model) / PARTS)


def discard(path: Path) -> int:
    """Delete one file, and the content that a link of the hub's cache leads to unless another link needs it.

    Gives the number of bytes freed.
    """
    if not path.is_symlink():
        return _delete(path)
    content = path.resolve()
    path.unlink()
    links = content.parent.parent.glob("snapshots/**/*")
    return 0 if any(link.resolve() == content for link in links) else _delete(content)


def _begun(source: HubFile) -> list[Path]:
    """Downloads of the repository that were cut; one written to just now is another process's."""
    blobs = (hub_folder(source.repo) / "blobs").glob("*.incomplete")
    return [path for path in blobs if time.time() - path.stat().st_mtime > _IN_USE_SECONDS]


def bytes_in(folder: Path) -> int:
    """Size of all files below ``folder``, which others may be writing and moving; 0 where there is none."""
    total = 0
    for place, _, names in os.walk(folder):  # unlike rglob, it passes over a folder that vanishes meanwhile
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def _delete(path: Path) -> int:
    if not path.is_file():
        return 0
    size = path.stat().st_size
    path.unlink()
    return size
