"""Packs that travel: put together from a user's own files, zipped, installed from a zip or a folder.

A pack made here is complete as it is: nothing is assembled on first use.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge_tts.core import Sampling
from edge_tts.errors import InputError, PackError
from edge_tts.files.atomic import Progress, building, disk_errors, exclusive, publish, require_space, silent
from edge_tts.files.folders import data_folder
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import manifest
from edge_tts.packs import pack as packs
from edge_tts.packs.manifest import Pack
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.search.allocation import StrategyTable

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Sources:
    """The files a pack is built from; what an export wrote beside a model goes with it."""

    policy: Path
    """GGUF."""
    verifier: Path | None = None
    """ONNX PRM, as edge_tts.export writes it."""
    tokenizer: Path | None = None
    """The PRM's tokenizer.json; given where ``verifier`` is."""
    table: Path | None = None
    """Strategy table."""
    card: Path | None = None
    """Model card: data, licences, figures, limits."""

    def by_name(self) -> dict[str, Path]:
        """Name inside the pack to the file, for those that are given."""
        named = {
            manifest.POLICY: self.policy,
            manifest.VERIFIER: self.verifier,
            manifest.VERIFIER_DATA: _beside(self.verifier, manifest.VERIFIER_DATA),
            manifest.TOKENIZER: self.tokenizer,
            manifest.TABLE: self.table,
            manifest.CARD: self.card,
            manifest.POLICY_ACCOUNT: _beside(self.policy, manifest.POLICY_ACCOUNT),
            manifest.VERIFIER_ACCOUNT: _beside(self.verifier, manifest.VERIFIER_ACCOUNT),
        }
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True)
class Settings:
    """What a manifest says besides its files."""

    licence: str
    """SPDX expression."""
    version: str = "1.0.0"
    prompts: PromptFormat = field(default_factory=PromptFormat)
    calculator: CalculatorFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)


def build(sources: Sources, settings: Settings, out: Path, progress: Progress = silent) -> Pack:
    """Write the pack ``out``, a new folder that gives it its name, and verify it.

    All or nothing. Raises InputError where ``out`` exists or a file does not fit, PackError where one
    is damaged, ResourceError where the disk is full.
    """
    _check_name(out.name)
    if out.exists():
        raise InputError(f"{out} exists; choose another folder, or delete it first")
    if (sources.verifier is None) != (sources.tokenizer is None):
        raise InputError("a verifier and its tokenizer go together; give both or none")
    files = sources.by_name()
    for path in files.values():
        if not path.is_file():
            raise InputError(f"{path} is missing or not a file")
    from edge_tts.planning.shapes import policy_shape, verifier_shape

    policy = policy_shape(sources.policy)
    verifier = verifier_shape(sources.verifier) if sources.verifier else None
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    require_space(out.parent, sum(path.stat().st_size for path in files.values()))
    with building(out.parent) as temporary:
        folder = temporary / out.name
        folder.mkdir()
        for index, (name, path) in enumerate(files.items()):
            progress(index / len(files), f"copying {name}")
            shutil.copyfile(path, folder / name)
        records = {name: FileRecord.of(folder / name) for name in files}
        pack = Pack(
            name=out.name,
            folder=folder,
            files=records,
            policy=policy,
            verifier=verifier,
            table=_table(folder / manifest.TABLE) if sources.table else None,
            **vars(settings),
        )
        manifest.write(pack, folder)
        _require_sound(manifest.read(folder))
        publish(folder, out)
    return replace(pack, folder=out)


def set_table(folder: Path, table: Mapping[str, Any]) -> Pack:
    """Give the pack in ``folder`` the strategy ``table``, in the place of one it has; its manifest follows.

    The folder is replaced as a whole. Raises PackError for a folder that is no pack and for a table that
    cannot be used, InputError or ResourceError where the folder cannot be written.
    """
    StrategyTable.parse(table)
    pack = manifest.read(folder)
    require_space(folder.parent, sum(path.stat().st_size for path in folder.iterdir()))
    with building(folder.parent) as temporary:
        changed = temporary / folder.name
        shutil.copytree(folder, changed)
        text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
        (changed / manifest.TABLE).write_text(text, encoding="utf-8")
        files = {**pack.files, manifest.TABLE: FileRecord.of(changed / manifest.TABLE)}
        manifest.write(replace(pack, files=files), changed)
        publish(changed, folder)
    return manifest.read(folder)


def read_prompts(path: Path | None) -> PromptFormat:
    """The templates in a JSON file, the usual ones where it says nothing. Raises InputError, PackError."""
    if path is None:
        return PromptFormat()
    content = manifest.read_json(path)
    known = {f.name for f in fields(PromptFormat)}
    if wrong := [key for key, value in content.items() if key not in known or not isinstance(value, str)]:
        raise InputError(f"{path}, {wrong[0]}: only {', '.join(sorted(known))} are prompt templates, each a text")
    prompts = PromptFormat(**content)
    for name, place in (("prompt", "{question}"), ("attempt", "{attempt}")):
        if place not in getattr(prompts, name):
            raise InputError(f"{path}, {name}: the template needs {place} where that text goes")
    return prompts


def archive(pack: Pack, out: Path, progress: Progress = silent) -> None:
    """Write the complete ``pack`` as the zip file ``out``, atomically; models hardly compress, so they are stored.

    Raises InputError where ``out`` exists, PackError where the pack is damaged or not assembled yet.
    """
    if out.exists():
        raise InputError(f"{out} exists; choose another file, or delete it first")
    if not pack.folder.exists():
        raise PackError(f"the pack {pack.name} is not assembled yet; run `edge-reason pack assemble {pack.name}` first")
    _require_sound(pack)
    names = [manifest.MANIFEST, *pack.files]
    require_space(out.parent, sum(record.bytes for record in pack.files.values()))
    with building(out.parent) as temporary:
        with zipfile.ZipFile(temporary / out.name, "w", zipfile.ZIP_STORED) as packed:
            for index, name in enumerate(names):
                progress(index / len(names), f"packing {name}")
                packed.write(pack.folder / name, f"{pack.name}/{name}")
        publish(temporary / out.name, out)


def install(source: Path, replace_existing: bool = False, progress: Progress = silent) -> Pack:
    """Put the pack in ``source``, a zip file or a folder, into the data folder, verified and all or nothing.

    Raises InputError where a pack of that name is there and ``replace_existing`` is false, PackError for
    anything that is not a sound pack, ResourceError where the disk is full.
    """
    home = data_folder()
    with exclusive(home, progress), building(home) as temporary:
        folder = temporary / "pack"
        folder.mkdir()
        _unpack(source, folder, progress)
        pack = manifest.read(folder)
        _check_name(pack.name)
        target = home / pack.name
        if target.exists() and not replace_existing:
            raise InputError(
                f"a pack {pack.name!r} is in {target} already; give --replace to put this one in its place"
            )
        progress(1.0, "verifying")
        _require_sound(pack)
        publish(folder, target)
    return manifest.read(target)


def _unpack(source: Path, folder: Path, progress: Progress) -> None:
    """Copy the files a pack may have, and no others, from a zip file or a folder."""
    wanted = manifest.FILES | {manifest.MANIFEST}
    if source.is_dir():
        found = [path for path in source.iterdir() if path.name in wanted]
        _require_manifest(source, [path.name for path in found])
        require_space(folder, sum(path.stat().st_size for path in found))
        for index, path in enumerate(found):
            progress(index / len(found), f"copying {path.name}")
            shutil.copyfile(path, folder / path.name)
        return
    try:
        with zipfile.ZipFile(source) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            # Names are not trusted: a pack is flat, or one folder deep, and its files are known.
            strange = [e.filename for e in entries if e.filename.count("/") > 1 or Path(e.filename).name not in wanted]
            if strange:
                raise PackError(
                    f"{source} is not a pack: it holds {strange[0]!r}; give a file made by `pack build --zip`"
                )
            _require_manifest(source, [Path(e.filename).name for e in entries])
            require_space(folder, sum(entry.file_size for entry in entries))
            for index, entry in enumerate(entries):
                name = Path(entry.filename).name
                progress(index / len(entries), f"unpacking {name}")
                with packed.open(entry) as content, (folder / name).open("wb") as out:
                    shutil.copyfileobj(content, out, _CHUNK_BYTES)
    except FileNotFoundError:
        raise InputError(f"{source} is missing; give a pack's zip file or folder") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PackError(f"{source} is damaged or no zip file ({error}); copy or download it again") from error


def _beside(model: Path | None, name: str) -> Path | None:
    """The file ``name`` in the folder of ``model``, where it is there."""
    path = model.with_name(name) if model else None
    return path if path and path.is_file() else None


def _require_manifest(source: Path, names: Sequence[str]) -> None:
    if manifest.MANIFEST not in names:
        raise PackError(f"{source} is not a pack: it has no {manifest.MANIFEST}; use one made by `pack build`")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(f"{name!r} is no name for a pack; use letters, digits, '.', '_' and '-', at most 64")
    if (packs.BUILT_IN / name).exists():
        raise InputError(f"{name!r} is the name of a built-in pack; choose another")


def _require_sound(pack: Pack) -> None:
    if problems := packs.verify(pack):
        raise PackError(f"{problems[0]}; nothing was written")


def _table(path: Path) -> Mapping[str, Any]:
    table: dict[str, Any] = manifest.read_json(path)
    StrategyTable.parse(table)
    return table
