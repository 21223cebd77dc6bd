"""Packs: find one, have it ready, verify it.

A built-in pack lives in this package as its parts (adapter, PRM, tokenizer, table); its policy is
assembled into the data folder on first use. Any other pack is a folder that is complete as it is.

Every file's sha256 is checked when a pack is assembled and by ``verify``. At start ``ensure`` only
compares size and modification time with those of the last full check, so that starting does not
read 100 MB twice; a file that was touched since is checked in full again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from edge_tts.errors import PackError
from edge_tts.files.atomic import Progress, building, exclusive, publish, require_space, silent
from edge_tts.files.folders import data_folder
from edge_tts.packs import manifest
from edge_tts.packs.manifest import Pack

__all__ = ["DEFAULT", "Pack", "ensure", "find", "installed", "is_assembled", "verify"]

DEFAULT = "smol-math"
BUILT_IN = Path(__file__).parent / "builtin"
ASSEMBLED = "assembled"
"""Where, inside the folder of its parts, a pack is put together that is not built in."""

_VERIFIED = ".verified.json"


def find(name_or_path: str | None = None) -> Pack:
    """The pack of that name (built in, or installed in the data folder) or in that folder.

    None is the default pack. Only manifests are read, so this also describes a pack that is not
    assembled yet: a built-in one will be in the data folder, one whose parts lie in the folder given
    inside that. Raises PackError when there is none, or its manifest is damaged.
    """
    wanted = name_or_path or DEFAULT
    is_name = Path(wanted).name == wanted
    if is_name and (BUILT_IN / wanted / manifest.MANIFEST).exists():
        source = BUILT_IN / wanted
        return replace(manifest.read(source), folder=_home() / wanted, source=source)
    if is_name and (_home() / wanted / manifest.MANIFEST).exists():
        return manifest.read(_home() / wanted)
    if Path(wanted).is_dir():
        folder = Path(wanted).absolute()
        found = manifest.read(folder)
        parts = found.recipe and (folder / manifest.ADAPTER).exists()
        return replace(found, folder=folder / ASSEMBLED, source=folder) if parts else found
    names = ", ".join(installed()) or "none"
    raise PackError(f"no pack {wanted!r}: installed are {names}; give one of these names or a pack's folder")


def installed() -> tuple[str, ...]:
    """Names of the packs that ``find`` knows, the built-in ones first."""
    names: dict[str, None] = {}
    for root in (BUILT_IN, _home()):
        names |= dict.fromkeys(sorted(path.parent.name for path in root.glob(f"[!.]*/{manifest.MANIFEST}")))
    return tuple(names)


def ensure(pack: Pack, progress: Progress = silent, base: Path | None = None) -> Pack:
    """``pack``, ready to load: assembled where that is needed, its files intact.

    ``base`` names the base model's file, to be used instead of searching for one. Raises PackError
    when a file is missing or damaged or the base model cannot be found, ResourceError or
    InputError when the disk does not take the pack.
    """
    if pack.source and not _is_current(pack):
        _assemble(pack, pack.source, base, progress)
    if not _unchanged(pack):
        if problems := verify(pack):
            raise PackError(f"{problems[0]}; {_remedy(pack)}")
        _record_verified(pack)
    return pack


def verify(pack: Pack) -> list[str]:
    """Check every file in full; one sentence for each problem, none for a sound pack.

    Sizes, sha256, the GGUF header, and whether the tokenizer fits the PRM. Of a built-in pack that
    is not assembled yet, or in another version, the parts are checked.
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
        from edge_tts.packs.tokenizer_check import prm_problems

        problems += prm_problems(folder / manifest.VERIFIER, folder / manifest.TOKENIZER)
    return problems


def is_assembled(pack: Pack) -> bool:
    """Whether the pack's folder is there, of the version at hand: after an upgrade, the next use replaces it."""
    if not pack.source or not pack.folder.exists():
        return pack.folder.exists()
    made, now = (folder / manifest.MANIFEST for folder in (pack.folder, pack.source))
    return made.exists() and made.read_bytes() == now.read_bytes()


def _is_current(pack: Pack) -> bool:
    """Whether the assembled pack is there and is of the same manifest as the built-in parts."""
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
    remedy = "reinstall edge-reasoning-runtime" if source.parent == BUILT_IN else f"make the parts in {source} anew"
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
            if problems := verify(built):
                raise PackError(
                    f"{problems[0]} (while assembling the pack {pack.name}; nothing was kept); "
                    f"{remedy}, and check the requirements"
                )
            _record_verified(built)
            publish(built.folder, pack.folder)


def _record_verified(pack: Pack) -> None:
    """Remember size and time of files just verified; a folder that cannot be written is verified every time."""
    try:
        (pack.folder / _VERIFIED).write_text(json.dumps(_stamps(pack)), encoding="utf-8")
    except OSError:
        return


def _unchanged(pack: Pack) -> bool:
    try:
        return bool(json.loads((pack.folder / _VERIFIED).read_text(encoding="utf-8")) == _stamps(pack))
    except (OSError, ValueError):
        return False


def _stamps(pack: Pack) -> dict[str, list[int | str]]:
    """Size, modification time (ns) and expected sha256 by file name. Raises OSError where one is missing."""
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
        return f"delete the folder {pack.folder} and run the command again to assemble it anew"
    return "see `edge-reason pack verify`, and restore the file from where the pack came from"


def _home() -> Path:
    return data_folder()
