"""Move packs between machines: write a pack as a zip file, install one from a zip file or a folder."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from edge_tts.errors import InputError, PackError
from edge_tts.files.atomic import Progress, building, exclusive, publish, require_space, silent
from edge_tts.files.folders import data_folder
from edge_tts.packs import manifest
from edge_tts.packs.manifest import Pack
from edge_tts.packs.pack import require_free_name, require_sound

_CHUNK_BYTES = 2**20
_KNOWN_FILES = manifest.FILES | {manifest.MANIFEST}


def write_zip(pack: Pack, out: Path, progress: Progress = silent) -> None:
    """Write the complete ``pack`` as the zip file ``out``, all or nothing.

    Files are stored uncompressed, since models hardly compress. Raises InputError where ``out`` exists,
    PackError where the pack is damaged or not assembled yet.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another file, or delete it first")
    if not pack.folder.exists():
        raise PackError(f"the pack {pack.name} is not assembled yet; run `edge-reason pack assemble {pack.name}` first")
    require_sound(pack)
    names = [manifest.MANIFEST, *pack.files]
    require_space(out.parent, sum(record.bytes for record in pack.files.values()))
    with building(out.parent) as temporary:
        with zipfile.ZipFile(temporary / out.name, "w", zipfile.ZIP_STORED) as packed:
            for index, name in enumerate(names):
                progress(index / len(names), f"packing {name}")
                packed.write(pack.folder / name, f"{pack.name}/{name}")
        publish(temporary / out.name, out)


def install_pack(source: Path, replace_existing: bool = False, progress: Progress = silent) -> Pack:
    """Check the pack in ``source``, a zip file or a folder, and put it into the data folder, all or nothing.

    Raises InputError where a pack of that name is installed and ``replace_existing`` is false, PackError
    where ``source`` is not a sound pack, ResourceError where the disk is full.
    """
    home = data_folder()
    with exclusive(home, progress), building(home) as temporary:
        folder = temporary / "pack"
        folder.mkdir()
        if source.is_dir():
            _copy_folder(source, folder, progress)
        else:
            _unpack_zip(source, folder, progress)
        pack = manifest.read(folder)
        require_free_name(pack.name)
        target = home / pack.name
        if target.exists() and not replace_existing:
            raise InputError(f"the pack {pack.name!r} is installed in {target} already; give --replace to replace it")
        progress(1.0, "verifying")
        require_sound(pack)
        publish(folder, target)
    return manifest.read(target)


def _copy_folder(source: Path, folder: Path, progress: Progress) -> None:
    """Copy the files that a pack may have; ``source`` may hold others."""
    found = [path for path in source.iterdir() if path.name in _KNOWN_FILES]
    _require_manifest(source, [path.name for path in found])
    require_space(folder, sum(path.stat().st_size for path in found))
    for index, path in enumerate(found):
        progress(index / len(found), f"copying {path.name}")
        shutil.copyfile(path, folder / path.name)


def _unpack_zip(source: Path, folder: Path, progress: Progress) -> None:
    """Unpack a zip file whose names are not trusted: only the files of a pack, at most one folder deep."""
    try:
        with zipfile.ZipFile(source) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            for entry in entries:
                if entry.filename.count("/") > 1 or Path(entry.filename).name not in _KNOWN_FILES:
                    raise PackError(
                        f"{source} is not a pack: it holds {entry.filename!r}; give a file made by `pack build --zip`"
                    )
            _require_manifest(source, [Path(entry.filename).name for entry in entries])
            require_space(folder, sum(entry.file_size for entry in entries))
            for index, entry in enumerate(entries):
                name = Path(entry.filename).name
                progress(index / len(entries), f"unpacking {name}")
                with packed.open(entry) as content, (folder / name).open("wb") as out:
                    shutil.copyfileobj(content, out, _CHUNK_BYTES)
    except FileNotFoundError:
        raise InputError(f"{source} is missing; give the zip file or the folder of a pack") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PackError(f"{source} is damaged or not a zip file ({error}); copy or download it again") from error


def _require_manifest(source: Path, names: Sequence[str]) -> None:
    if manifest.MANIFEST not in names:
        raise PackError(f"{source} is not a pack: it has no {manifest.MANIFEST}; use one made by `pack build`")
