"""A ladder: one policy at several quantisations, each rung made from the same F16 GGUF.

llama.cpp's ``llama_model_quantize`` is called in a child process, because the call cannot be interrupted but a process
can. A rung is written under another name and renamed when it is complete. A rung that is there already and was made
from the same source is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_tts.errors import InputError
from edge_tts.export.checkpoint import Checkpoint, locate, open_checkpoint, require_finite
from edge_tts.export.converter import convert, follow
from edge_tts.export.merge_lora import merge
from edge_tts.files.atomic import Progress, building, disk_errors, publish, require_space, silent
from edge_tts.files.gguf import open_gguf
from edge_tts.files.integrity import FileRecord
from edge_tts.runtimes.device import threads

F16 = "F16"
LADDER = "ladder.json"
"""What each rung in a folder was made from."""
_PREFIX = "LLAMA_FTYPE_MOSTLY_"
_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_LARGEST_SHARE = 0.6
"""No other quantisation takes a larger share of F16's size (Q8_0: 0.53, plus unquantised tensors)."""


def quantisations() -> dict[str, int]:
    """The quantisations that the installed llama.cpp can write, and its number for each (enum llama_ftype)."""
    import llama_cpp.llama_cpp as lib

    names = [name for name in dir(lib) if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): int(getattr(lib, name)) for name in names}


def parse(wanted: Sequence[str]) -> list[str]:
    """Quantisation names as llama.cpp spells them, without repetition. Raises InputError."""
    known = {name.upper(): name for name in quantisations()}
    for name in wanted:
        if name.upper() not in known:
            raise InputError(
                f"{name!r} is no quantisation this llama.cpp knows; give one of {', '.join(sorted(known))}"
            )
    return list(dict.fromkeys(known[name.upper()] for name in wanted))


def build(
    source: str,
    wanted: Sequence[str],
    out: Path,
    lora: Path | None = None,
    imatrix: str | None = None,
    progress: Progress = silent,
) -> dict[str, Path]:
    """Write the rungs ``wanted`` of the policy ``source`` into ``out``; returns the file of each, F16 first.

    ``source`` is a checkpoint folder, a hub id or a GGUF. ``lora`` is a PEFT adapter to merge first. ``imatrix`` is a
    text to measure an importance matrix on; that needs a checkpoint. The F16 rung is always made, and the others are
    made from it. Raises InputError, PackError, ResourceError, BackendError.
    """
    rungs = list(dict.fromkeys([F16, *parse(wanted)]))
    path = locate(source)
    checkpoint = open_checkpoint(path) if path.is_dir() else None
    if imatrix is not None and (checkpoint is None or lora is not None):
        raise InputError(
            f"an importance matrix is measured with an unchanged checkpoint folder, not with "
            f"{'an adapter' if lora else path.name}; leave --imatrix out, or give a (merged) checkpoint"
        )
    origin = identity(path, checkpoint, lora)
    importance = f"{origin}, importance {hashlib.sha256(imatrix.encode()).hexdigest()}" if imatrix else origin
    origins = {name: origin if name == F16 else importance for name in rungs}
    size = checkpoint.f16_bytes if checkpoint else _f16_bytes(path)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    made = {name: out / f"policy-{name}.gguf" for name in rungs}
    todo = [name for name in rungs if not _is_made(made[name], origins[name])]
    if todo:
        copies = 2 if lora and F16 in todo else 1
        require_space(out, int(size * (copies * (F16 in todo) + _LARGEST_SHARE * len(set(todo) - {F16}))))
        if checkpoint and F16 in todo:
            progress(0.0, f"converting needs about {checkpoint.conversion_bytes / 2**20 + 400:.0f} MiB of memory")
    columns: Path | None = None
    with building(out) as scratch:
        for name in todo:
            with building(out) as temporary:
                file = temporary / made[name].name
                if name == F16:
                    _write_f16(path, checkpoint, lora, file, temporary, progress)
                else:
                    if imatrix is not None and columns is None:
                        columns = _importance(path, made[F16], imatrix, scratch, progress)
                    for done in quantise(made[F16], file, name, columns):
                        progress(done, f"quantising to {name}")
                publish(file, made[name])
            _note(out, made[name], origins[name])
    return made


def _importance(path: Path, f16: Path, text: str, folder: Path, progress: Progress) -> Path:
    from edge_tts.export import importance  # loads PyTorch, which the child processes of this module do not need

    columns = folder / "importance.npz"
    np.savez(columns, **importance.measure(path, f16, text, progress))  # type: ignore[arg-type]
    return columns


def quantise(source: Path, out: Path, name: str, importance: Path | None = None) -> Iterator[float]:
    """Write ``source`` as ``out`` with most weights as ``name``, yielding the fraction done.

    ``importance`` is a .npz of column importances by tensor name. Raises BackendError.
    """
    command = [sys.executable, "-P", "-m", "edge_tts.export.ladder", str(source), str(out), name]
    if importance is not None:
        command.append(str(importance))
    yield from follow(command, _TENSOR, None, dict(os.environ))


def identity(path: Path, checkpoint: Checkpoint | None, lora: Path | None) -> str:
    """What a rung is made from: names, sizes and times of the source's files, the adapter's included."""
    files = [path] if checkpoint is None else checkpoint.files
    if lora is not None:
        files += sorted(lora.glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps(stats, separators=(",", ":"))


def _write_f16(
    path: Path, checkpoint: Checkpoint | None, lora: Path | None, out: Path, temporary: Path, progress: Progress
) -> None:
    if checkpoint is None:
        _rewrite_gguf(path, lora, out, temporary, progress)
        return
    for done in require_finite(checkpoint):
        progress(done, "checking the weights")
    if lora is not None:
        for done in merge(checkpoint, lora, temporary / "merged"):
            progress(done, "merging the adapter")
        checkpoint = open_checkpoint(temporary / "merged")
    for done in convert(checkpoint, out, progress):
        progress(done, "converting to GGUF")


def _rewrite_gguf(path: Path, lora: Path | None, out: Path, temporary: Path, progress: Progress) -> None:
    from edge_tts.export.adapter import convert as convert_adapter
    from edge_tts.packs import merge_adapter as gguf_merge

    if lora is not None:
        convert_adapter(lora, path, temporary / "adapter.gguf", F16)
        gguf_merge.merge(path, temporary / "adapter.gguf", out, F16, progress)
        return
    for done in quantise(path, out, F16):
        progress(done, "rewriting as F16")


def _f16_bytes(path: Path) -> int:
    return 2 * sum(int(tensor.n_elements) for tensor in open_gguf(path).tensors)


def _is_made(file: Path, origin: str) -> bool:
    note = _notes(file.parent).get(file.name)
    return file.is_file() and note is not None and note["source"] == origin and note["bytes"] == file.stat().st_size


def _notes(folder: Path) -> dict[str, dict[str, str | int]]:
    try:
        notes: dict[str, dict[str, str | int]] = json.loads((folder / LADDER).read_text(encoding="utf-8"))
        return notes
    except (OSError, ValueError):
        return {}


def _note(folder: Path, file: Path, origin: str) -> None:
    """Record what a rung was made from, and its digest; atomically."""
    record = FileRecord.of(file)
    notes = _notes(folder) | {file.name: {"source": origin, "bytes": record.bytes, "sha256": record.sha256}}
    temporary = folder / f".{LADDER}"
    temporary.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / LADDER)


def main() -> int:
    """The child process: ``ladder SOURCE OUT NAME [IMPORTANCE]``. The parent reads progress from llama.cpp's log."""
    import llama_cpp.llama_cpp as lib

    source, out, name, *importance = sys.argv[1:]
    params = lib.llama_model_quantize_default_params()
    params.ftype = quantisations()[name]
    params.allow_requantize = True  # a GGUF source may be quantised already; the measurements show what that costs
    params.nthread = threads(None)
    if importance:
        with np.load(importance[0]) as saved:
            columns = {name: np.ascontiguousarray(saved[name], np.float32) for name in saved.files}
        pointer = ctypes.POINTER(ctypes.c_float)
        entry = lib.llama_model_imatrix_data
        entries = [entry(name.encode(), data.ctypes.data_as(pointer), data.size) for name, data in columns.items()]
        # One entry more, because an entry without a name ends the list.
        params.imatrix = (entry * (len(entries) + 1))(*entries)
    failed = lib.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
