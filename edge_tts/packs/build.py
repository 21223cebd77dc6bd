"""Build a pack from a user's own files. It is complete at once: nothing is assembled on first use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_tts.core import Sampling
from edge_tts.errors import InputError
from edge_tts.files.atomic import Progress, building, disk_errors, publish, require_space, silent, turn
from edge_tts.files.integrity import FileRecord
from edge_tts.files.typed import typed
from edge_tts.packs import manifest
from edge_tts.packs.bare_model import TEMPERATURE
from edge_tts.packs.manifest import Pack
from edge_tts.packs.pack import require_free_name, require_sound
from edge_tts.reasoning.formats import TRACE_TOKENS, FormatName
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.graph_metadata import VERIFIER_DATA
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.fit import parse as parse_fits


@dataclass(frozen=True)
class PackFiles:
    """The files a pack is built from. The accounts that an export wrote beside a model are packed with it."""

    policy: Path
    """GGUF."""
    verifier: Path | None = None
    """ONNX PRM, as ``edge-reason export prm`` writes it."""
    tokenizer: Path | None = None
    """The PRM's tokenizer.json; required with ``verifier``."""
    table: Path | None = None
    """Strategy table."""
    card: Path | None = None
    """Model card: data, licences, figures, limits."""

    def by_name(self) -> dict[str, Path]:
        """The given files by their names inside the pack."""
        named = {
            manifest.POLICY: self.policy,
            manifest.VERIFIER: self.verifier,
            VERIFIER_DATA: _beside(self.verifier, VERIFIER_DATA),
            manifest.TOKENIZER: self.tokenizer,
            manifest.TABLE: self.table,
            manifest.CARD: self.card,
            manifest.POLICY_ACCOUNT: _beside(self.policy, manifest.POLICY_ACCOUNT),
            manifest.VERIFIER_ACCOUNT: _beside(self.verifier, manifest.VERIFIER_ACCOUNT),
        }
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True)
class PackSettings:
    """What the manifest states besides files and shapes.

    Raises InputError for prompts or a calculator that the format does not use.
    """

    licence: str
    """SPDX expression."""
    version: str = "1.0.0"
    prompts: PromptFormat | None = None
    """Templates of a policy that writes equations; None for the default ones."""
    calculator: CalculatorFormat | None = None
    """None: no results are written for the policy."""
    sampling: Sampling | None = None
    """None: what suits the format, see :func:`sampling_for`."""
    format: FormatName = "equations"
    """How the policy reasons: "equations" for one that was fine-tuned to write them; for a chat model "text", or
    "program" where it is good at writing programs for computations."""

    def __post_init__(self) -> None:
        if self.format == "equations":
            return
        asked = f"a chat model (format {self.format}) is asked through its own template"
        if self.prompts is not None:
            raise InputError(f"{asked}; leave the prompts out, or choose the format equations")
        if self.calculator is not None:
            raise InputError(f"{asked} and writes its own results; leave the calculator out")

    def fields(self) -> dict[str, Any]:
        """The same as fields of :class:`Pack`."""
        return {
            "licence": self.licence,
            "version": self.version,
            "prompts": self.prompts or PromptFormat(),
            "calculator": self.calculator,
            "sampling": self.sampling or sampling_for(self.format),
            **manifest.fields_of(self.format),
        }


def sampling_for(format: FormatName, temperature: float | None = None) -> Sampling:
    """How a policy that reasons in ``format`` is drawn from, by default as the same model is without a pack."""
    if format == "equations":
        usual = Sampling(max_tokens=TRACE_TOKENS["equations"])
    else:
        usual = Sampling(TEMPERATURE, max_tokens=TRACE_TOKENS["text"])  # words may follow, where programs do not suit
    return usual if temperature is None else replace(usual, temperature=temperature)


def build_pack(sources: PackFiles, settings: PackSettings, out: Path, progress: Progress = silent) -> Pack:
    """Write a pack into the new folder ``out``, whose name becomes the pack's name, and check it; all or nothing.

    Raises InputError where ``out`` exists or a file is missing, PackError where a file is damaged or two do not
    belong together, ResourceError where the disk is full.
    """
    require_free_name(out.name)
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder, or delete it first")
    if (sources.verifier is None) != (sources.tokenizer is None):
        raise InputError("a verifier and its tokenizer go together, and only one is given; give both or neither")
    files = sources.by_name()
    for path in files.values():
        if not path.is_file():
            raise InputError(f"{path} is missing or not a file; check the path")
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
            table=_read_table(folder / manifest.TABLE) if sources.table else None,
            **settings.fields(),
        )
        manifest.write(pack, folder)
        require_sound(manifest.read(folder))
        publish(folder, out)
    return replace(pack, folder=out)


def set_fits(folder: Path, table: Mapping[str, Any] | None, controller: Mapping[str, Any] | None) -> Pack:
    """Put what was fitted for ``auto`` into the pack in ``folder``, in the place of what it has; None: leave it out.

    ``table`` is the strategy table, ``controller`` the controller's fit. The folder is replaced as a whole. Raises
    PackError where ``folder`` is not a pack or a fit cannot be used, InputError or ResourceError where the folder
    cannot be written.
    """
    fits = {manifest.TABLE: table, manifest.CONTROLLER: controller}
    if table is not None:
        StrategyTable.parse(table)
    parse_fits(controller)
    folder = folder.absolute()
    manifest.read(folder)  # nothing is locked where there is no pack
    with turn(folder.parent), building(folder.parent) as temporary:
        pack = manifest.read(folder)
        require_space(folder.parent, sum(path.stat().st_size for path in folder.iterdir()))
        changed = temporary / folder.name
        shutil.copytree(folder, changed)
        files = {name: record for name, record in pack.files.items() if name not in fits}
        for name, content in fits.items():
            (changed / name).unlink(missing_ok=True)
            if content is not None:
                text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
                (changed / name).write_text(text, encoding="utf-8")
                files[name] = FileRecord.of(changed / name)
        manifest.write(replace(pack, files=files), changed)
        publish(changed, folder)
    return manifest.read(folder)


def read_prompts(path: Path | None) -> PromptFormat:
    """The prompt templates in a JSON file; those it leaves out, or all for None, keep their defaults.

    Raises PackError where the file cannot be read, InputError where a template cannot be used.
    """
    if path is None:
        return PromptFormat()
    return typed(PromptFormat, manifest.read_json(path), str(path), InputError)


def _beside(model: Path | None, name: str) -> Path | None:
    """The file ``name`` in the folder of ``model`` if there is one."""
    path = model.with_name(name) if model else None
    return path if path and path.is_file() else None


def _read_table(path: Path) -> Mapping[str, Any]:
    table = manifest.read_json(path)
    StrategyTable.parse(table)
    return table
