"""Fetching a GGUF from the Hugging Face hub, through huggingface_hub.

Files stay in the hub's own cache: ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean
everywhere, and a download that was cut goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tts.errors import InputError, ResourceError
from edge_tts.files.atomic import FULL, Progress
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import model_files
from edge_tts.packs.sources import HubFile, UnavailableError

_TIMEOUT_SECONDS = 5
"""Most time to wait for the hub's first answer, so that the next source gets its turn."""
_SPARE_BYTES = 64 * 2**20
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class _Wanted:
    """One file of a repository, as the hub describes it."""

    name: str
    size: int
    sha256: str | None
    """None for a file that the hub does not keep as a large one."""


def download(source: HubFile, progress: Progress, pinned: FileRecord | None = None) -> Path:
    """Fetch the file that ``source`` means into the hub's cache and check it; the path of it, or of its first part.

    ``pinned`` is what the file must be; otherwise it must be what the hub says it is. Raises UnavailableError where the
    hub does not deliver it, ResourceError where the disk is full, InputError where the cache cannot be written.
    """
    with _hub_errors(source), _quiet():
        wanted = _ask(source)
        if pinned and FileRecord(wanted[0].size, wanted[0].sha256 or pinned.sha256) != pinned:
            raise UnavailableError(f"{source} on the hub is not the pinned file: it has sha256 {wanted[0].sha256}")
        _require_space(source, wanted)
        paths = [_fetch(source, part, progress) for part in wanted]
    for path, part in zip(paths, wanted, strict=True):
        progress(1.0, f"verifying {path.name}")
        expected = pinned or (FileRecord(part.size, part.sha256) if part.sha256 else None)
        problem = expected.problem(path) if expected else None
        if not problem and not _is_gguf(path):
            problem = "is not a GGUF file"
        if problem:
            model_files.discard(path)
            raise UnavailableError(f"{source} from the hub {problem}, and was deleted")
    return paths[0]


def size(source: HubFile) -> int:
    """Bytes of the file that ``source`` means, as the hub says; fetches nothing.

    Raises UnavailableError where the hub does not say it.
    """
    with _hub_errors(source), _quiet():
        return sum(part.size for part in _ask(source))


def _ask(source: HubFile) -> list[_Wanted]:
    """What the hub has for ``source``, in one quick request without retries."""
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS)
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    wanted = []
    for name in model_files.select(files, source):
        lfs = files[name].lfs
        wanted.append(_Wanted(name, files[name].size or 0, lfs.sha256 if lfs else None))
    return wanted


def _fetch(source: HubFile, part: _Wanted, progress: Progress) -> Path:
    from huggingface_hub import constants, hf_hub_download

    label = f"downloading {Path(part.name).name} ({part.size / 1e6:.0f} MB)"
    _reopen(source, part)
    with _over_http(part), _watched(source, part, progress, label):
        path = hf_hub_download(
            source.repo,
            part.name,
            revision=source.revision,
            etag_timeout=_TIMEOUT_SECONDS,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
        )
    return Path(path)


def _reopen(source: HubFile, part: _Wanted) -> None:
    """Take a byte off a begun download that is complete: the library would ask for the bytes after the last one,
    which no server has, in every further run."""
    from filelock import FileLock, Timeout

    begun = model_files.hub_folder(source.repo) / "blobs" / f"{part.sha256}.incomplete"
    if not begun.exists() or begun.stat().st_size < part.size:
        return
    lock = model_files.hub_cache() / ".locks" / begun.parent.parent.name / f"{part.sha256}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Timeout), FileLock(lock, timeout=0):  # held by whoever is writing it now
        os.truncate(begun, max(0, part.size - 1))


@contextlib.contextmanager
def _watched(source: HubFile, part: _Wanted, progress: Progress, label: str) -> Iterator[None]:
    """Report how much of a file is there while it is fetched, from a thread: the hub's library takes no callback."""
    blobs = model_files.hub_folder(source.repo) / "blobs"
    finished = threading.Event()

    def look() -> None:
        while not finished.wait(_LOOK_SECONDS):
            with contextlib.suppress(OSError):  # the file is renamed when it is complete
                sizes = [path.stat().st_size for path in blobs.glob(f"{part.sha256 or ''}*.incomplete")]
                progress(min(1.0, max(sizes, default=0) / max(1, part.size)), label)

    progress(0.0, label)
    watcher = threading.Thread(target=look, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


@contextlib.contextmanager
def _over_http(part: _Wanted) -> Iterator[None]:
    """Have the library ask for the bytes that are missing: over Xet, where it can, it begins a cut download anew."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or part.size <= constants.MAX_HTTP_DOWNLOAD_SIZE
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub library's own bars and warnings away: what they say is said once, by this project."""
    import logging

    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, level = not are_progress_bars_disabled(), hub_logging.get_verbosity()
    disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            yield
    finally:
        hub_logging.set_verbosity(level)
        if shown:
            enable_progress_bars()


@contextlib.contextmanager
def _hub_errors(source: HubFile) -> Iterator[None]:
    """Turn what the hub's library raises into one sentence that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UnavailableError(
            f"{source.repo} is gated: accept its terms on its page on the hub, then log in with `hf auth login` or set "
            "HF_TOKEN",
            InputError,
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UnavailableError(
            f"the hub has no repository {source.repo}: check the name, or set HF_TOKEN if it is private", InputError
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UnavailableError(f"{source.repo} on the hub has no revision {source.revision}", InputError) from error
    except errors.LocalEntryNotFoundError as error:  # what the library says of any failure before the download itself
        cause = error.__cause__
        raise _from_os_error(cause if isinstance(cause, OSError) else error, source) from error
    except errors.EntryNotFoundError as error:
        raise UnavailableError(f"the hub has no {source}", InputError) from error
    except errors.HFValidationError as error:
        raise UnavailableError(f"{source.repo!r} is no hub id; give owner/repo", InputError) from error
    except InputError as error:
        raise UnavailableError(str(error), InputError) from error
    except OSError as error:
        raise _from_os_error(error, source) from error


def _from_os_error(error: OSError, source: HubFile) -> Exception:
    """The hub's library raises OSError both for the disk, with these numbers, and for the network."""
    from huggingface_hub import constants
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    cache = f"the hub's cache {model_files.hub_cache()}"
    if error.errno in FULL:
        return ResourceError(f"{cache} is on a full disk; free some space, or set HF_HOME to a folder on another one")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return InputError(f"{cache} cannot be written ({error.strerror}); set HF_HOME to a folder you own")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return UnavailableError(f"the hub refused {source} ({status}): check HF_TOKEN and its rights", InputError)
    if status:
        return UnavailableError(f"the hub at {constants.ENDPOINT} answered {status} for {source}")
    if isinstance(error, (NoConnection, Timeout)):
        return UnavailableError(f"the hub at {constants.ENDPOINT} cannot be reached ({_reason(error)})")
    return UnavailableError(f"the hub did not deliver {source}: {_first_line(error)}")


def _reason(error: BaseException) -> str:
    """The innermost cause: requests and urllib3 wrap it, and say more of themselves than of it."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or next((part for part in inner.args if _is_error(part)), None)
        if not _is_error(deeper):
            return _first_line(inner)
        inner = deeper


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return re.sub(r"^\w*Connection\w*\(.*?\): ", "", text.rpartition(">: ")[2])[:200] or type(error).__name__


def _require_space(source: HubFile, wanted: list[_Wanted]) -> None:
    cache = model_files.hub_cache()
    blobs = model_files.hub_folder(source.repo) / "blobs"
    needed = _SPARE_BYTES
    for part in wanted:
        begun = blobs / f"{part.sha256}.incomplete"
        if not (blobs / str(part.sha256)).exists():
            needed += part.size - (begun.stat().st_size if begun.exists() else 0)
    there = next(path for path in [cache, *cache.parents] if path.exists())
    if (free := shutil.disk_usage(there).free) < needed:
        raise ResourceError(
            f"the disk of {cache} has {free / 1e6:.0f} MB free and {source} needs {needed / 1e6:.0f} MB; free some "
            "space, or set HF_HOME to a folder on another disk"
        )


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
