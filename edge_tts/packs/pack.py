"""Find a pack, prepare it for loading, check its files.

A built-in pack is stored in this package as parts (adapter, PRM, tokenizer, table); its policy is
assembled in the data folder on first use. Any other pack is a folder that is complete already.

``pack_problems`` and assembling compute the sha256 of every file. ``prepare_pack`` only compares sizes and
modification times with those of the last full check, so that a start does not read 100 MB twice; when
one of them has changed, it checks every file in full again.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from edge_tts.errors import InputError, PackError
from edge_tts.files.atomic import Progress, building, exclusive, publish, require_space, silent
from edge_tts.files.folders import data_folder
from edge_tts.packs import manifest
from edge_tts.packs.download import locate as locate_model
from edge_tts.packs.manifest import Pack

__all__ = ["DEFAULT", "Pack", "find_pack", "is_assembled", "pack_names", "pack_problems", "prepare_pack"]

DEFAULT = "smol-math"
BUILT_IN = Path(__file__).parent / "builtin"
ASSEMBLED = "assembled"
"""Folder, inside the folder of its parts, in which a pack that is not built in is assembled."""

_VERIFIED = ".verified.json"


def find_pack(name_or_path: str | None = None) -> Pack:
    """The pack with that name (built in or installed), or the pack in that folder; None is the default pack.

    Only the manifest and the strategy table are read, so a pack that is not assembled yet is described, too.
    ``Pack.folder`` is then where it will be assembled: the data folder for a built-in pack, a folder inside
    the given one for parts found there. Raises PackError where there is no such pack or its manifest is damaged.
    """
    wanted = name_or_path or DEFAULT
    is_name = Path(wanted).name == wanted
    if is_name and (BUILT_IN / wanted / manifest.MANIFEST).exists():
        source = BUILT_IN / wanted
        return replace(manifest.read(source), folder=data_folder() / wanted, source=source)
    if is_name and (data_folder() / wanted / manifest.MANIFEST).exists():
        return manifest.read(data_folder() / wanted)
    if Path(wanted).is_dir():
        folder = Path(wanted).absolute()
        found = manifest.read(folder)
        parts = found.recipe and (folder / manifest.ADAPTER).exists()
        return replace(found, folder=folder / ASSEMBLED, source=folder) if parts else found
    names = ", ".join(pack_names()) or "none"
    raise PackError(f"no pack {wanted!r}; known packs: {names}; give one of these names or the folder of a pack")


def pack_names() -> tuple[str, ...]:
    """Names of the packs that ``find_pack`` knows, the built-in ones first."""
    names: dict[str, None] = {}
    for root in (BUILT_IN, data_folder()):
        names |= dict.fromkeys(sorted(path.parent.name for path in root.glob(f"[!.]*/{manifest.MANIFEST}")))
    return tuple(names)


def prepare_pack(pack: Pack, progress: Progress = silent, base: Path | None = None) -> Pack:
    """Make ``pack`` ready to load: assemble it if that is needed, and check its files.

    ``base`` is the file of the base model; None searches for it. Raises PackError where a file is missing
    or damaged or the base model cannot be found, ResourceError where the disk is full, InputError where it
    cannot be written.
    """
    if pack.is_bare:
        return pack if pack.gguf or pack.model is None else replace(pack, gguf=locate_model(pack.model, progress))
    if pack.source and not _is_current(pack):
        _assemble(pack, pack.source, base, progress)
    if not _is_unchanged(pack):
        if problems := pack_problems(pack):
            raise PackError(f"{problems[0]}; {_remedy(pack)}")
        _record_verified(pack)
    return pack


def pack_problems(pack: Pack) -> list[str]:
    """Check every file in full: one sentence for each problem, an empty list for a sound pack.

    Checks sizes, sha256, the GGUF header, and that the PRM and its tokenizer score a trace. Where the pack still
    has to be assembled, or was assembled from another version, its parts are checked.
    """
    if pack.source and pack.folder.exists():
        try:
            manifest.read(pack.folder)
        except PackError as error:
            return [str(error)]
    folder, files = pack.folder, dict(pack.files)
    if pack.source and pack.recipe and not is_assembled(pack):
        folder = pack.source
        files.pop(manifest.POLICY, None)
        files[manifest.ADAPTER] = pack.recipe.adapter
    required = {manifest.POLICY} if folder == pack.folder else set()
    required |= {manifest.VERIFIER, manifest.TOKENIZER} if pack.verifier else set()
    problems = [f"{folder / name} is not listed in the manifest" for name in sorted(required - set(files))]
    for name, record in files.items():
        if problem := record.problem(folder / name):
            problems.append(f"{folder / name} {problem}")
    if not problems and folder == pack.folder:
        problems += _gguf_problems(pack.policy_path)
    if not problems and pack.verifier:
        from edge_tts.packs.prm_check import prm_problems

        problems += prm_problems(folder / manifest.VERIFIER, folder / manifest.TOKENIZER)
    return problems


def is_assembled(pack: Pack) -> bool:
    """Whether the pack's folder exists and was assembled from the present parts, not from an earlier version."""
    if not pack.source or not pack.folder.exists():
        return pack.folder.exists()
    assembled, parts = (folder / manifest.MANIFEST for folder in (pack.folder, pack.source))
    return assembled.exists() and assembled.read_bytes() == parts.read_bytes()


def is_ready(pack: Pack) -> bool:
    """Whether ``pack`` can be loaded without a download, and without being assembled first."""
    if pack.is_bare:
        return pack.gguf is not None or pack.model is None
    return pack.source is None or is_assembled(pack)


def require_sound(pack: Pack) -> None:
    """Raise PackError with the first problem of ``pack``, if it has one."""
    if problems := pack_problems(pack):
        raise PackError(f"{problems[0]}; nothing was written")


def require_free_name(name: str) -> None:
    """Raise InputError unless a user's own pack may have this name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"a pack cannot be named {name!r}; use at most 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )
    if (BUILT_IN / name).exists():
        raise InputError(f"the name {name!r} belongs to a built-in pack; choose another name")


def _is_current(pack: Pack) -> bool:
    """Whether the assembled pack exists and its manifest says the same as that of the parts."""
    if not pack.folder.exists():
        return False
    try:
        return replace(manifest.read(pack.folder), source=pack.source) == pack
    except PackError as error:
        raise PackError(f"{error}, or {_remedy(pack)}") from error


def _assemble(pack: Pack, source: Path, base: Path | None, progress: Progress) -> None:
    """Build the pack's folder from the parts in ``source``; other processes wait for the first.

    All or nothing: an error, an interrupt or a killed process leaves no partial pack.
    """
    from edge_tts.packs.base_model import locate
    from edge_tts.packs.merge_adapter import merge

    home = pack.folder.parent
    remedy = "reinstall edge-reasoning-runtime" if source.parent == BUILT_IN else f"make the parts in {source} again"
    with exclusive(home, progress):
        if _is_current(pack):
            return
        require_space(home, sum(record.bytes for record in pack.files.values()))
        adapter = source / manifest.ADAPTER
        if pack.recipe is None:
            raise PackError(f"{source / manifest.MANIFEST} has no recipe; {remedy}")
        if problem := pack.recipe.adapter.problem(adapter):
            raise PackError(f"{adapter} {problem}; {remedy}")
        base_file = locate(pack.recipe.base, base, progress)
        with building(home) as temporary:
            built = replace(pack, folder=temporary / pack.name, source=None)
            built.folder.mkdir()
            for name in {manifest.MANIFEST, *pack.files} - {manifest.POLICY}:
                shutil.copyfile(source / name, built.folder / name)
            merge(base_file, adapter, built.policy_path, pack.recipe.quantisation, progress)
            progress(1.0, "verifying")
            if problems := pack_problems(built):
                raise PackError(
                    f"{problems[0]} (while the pack {pack.name} was assembled; nothing was kept); "
                    f"{remedy}, and check that the installed requirements have the pinned versions"
                )
            _record_verified(built)
            publish(built.folder, pack.folder)


def _record_verified(pack: Pack) -> None:
    """Store sizes and times of the files just checked. In a folder that cannot be written, every start checks all."""
    try:
        (pack.folder / _VERIFIED).write_text(json.dumps(_stamps(pack)), encoding="utf-8")
    except OSError:
        return


def _is_unchanged(pack: Pack) -> bool:
    try:
        return bool(json.loads((pack.folder / _VERIFIED).read_text(encoding="utf-8")) == _stamps(pack))
    except (OSError, ValueError):
        return False


def _stamps(pack: Pack) -> dict[str, list[int | str]]:
    """Size, modification time (ns) and expected sha256 by file name. Raises OSError where a file is missing."""
    stats = {name: (pack.folder / name).stat() for name in pack.files}
    return {name: [stat.st_size, stat.st_mtime_ns, pack.files[name].sha256] for name, stat in stats.items()}


def _gguf_problems(path: Path) -> list[str]:
    with path.open("rb") as file:
        header = file.read(8)
    if header[:4] != b"GGUF" or int.from_bytes(header[4:], "little") not in (2, 3):
        return [f"{path} is not a GGUF file of version 2 or 3: it begins with {header!r}"]
    return []


def _remedy(pack: Pack) -> str:
    if pack.source:
        return f"delete the folder {pack.folder} and run the command again to assemble the pack again"
    return "run `edge-reason pack verify`, and restore the damaged files from where the pack came from"
