"""A pack's manifest: what the pack is, which files it has, and how its policy is assembled.

``manifest.json`` is one JSON object. Its ``files`` pin the size and sha256 of every other file of the
pack. Its ``checksum`` covers the manifest itself, so that damage to it is noticed. The manifest is the
same before and after the pack is assembled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_tts.core import Sampling
from edge_tts.errors import PackError
from edge_tts.files.integrity import FileRecord
from edge_tts.files.typed import typed
from edge_tts.packs.base_model import BaseModel
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.sources import HubFile
from edge_tts.reasoning.formats import FormatName
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.config import PolicyShape, VerifierShape
from edge_tts.runtimes.graph_metadata import VERIFIER_DATA

FORMAT = 1
MANIFEST = "manifest.json"
POLICY = "policy.gguf"
ADAPTER = "adapter.gguf"
VERIFIER = "prm.onnx"
TOKENIZER = "tokenizer.json"
TABLE = "table.json"
CONTROLLER = "controller.json"
CARD = "MODEL_CARD.md"
POLICY_ACCOUNT = "account.json"
VERIFIER_ACCOUNT = "prm-account.json"
"""What quantising cost in accuracy, as the export measured it for the policy and for the verifier."""
FILES = frozenset(
    {POLICY, VERIFIER, VERIFIER_DATA, TOKENIZER, TABLE, CONTROLLER, CARD, POLICY_ACCOUNT, VERIFIER_ACCOUNT}
)
"""Names of the files that a complete pack may have beside its manifest."""

QUANTISATIONS = {
    "F32": ("F32", "F32", 0),
    "F16": ("F16", "F16", 1),
    "Q8_0": ("Q8_0", "Q8_0", 7),
    "Q4_0": ("Q4_0", "Q4_0", 2),
    "Q4_0+Q8_0": ("Q4_0", "Q8_0", 2),
}
"""By name: type of most matrices, type of sensitive ones, and ``general.file_type`` (enum llama_ftype)."""

_Named = Annotated[str, msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class Recipe:
    """How the policy of a pack is assembled on this machine: base model plus adapter.

    Raises PackError for a quantisation that this version does not know.
    """

    base: BaseModel
    adapter: FileRecord
    quantisation: str = "Q4_0"
    """How the merged policy is stored, a key of ``QUANTISATIONS``."""

    def __post_init__(self) -> None:
        if self.quantisation not in QUANTISATIONS:
            raise PackError(
                f"recipe.quantisation must be one of {', '.join(QUANTISATIONS)}, found {self.quantisation!r}"
            )


@dataclass(frozen=True)
class Pack:
    """A policy with everything needed to search with it. The files are in ``folder``."""

    name: str
    version: str
    licence: str
    """SPDX expression."""
    folder: Path
    files: Mapping[str, FileRecord]
    """Size and sha256 of every file except the manifest, by file name."""
    prompts: PromptFormat
    calculator: CalculatorFormat | None
    """None: the policy was not trained to have results written for it."""
    sampling: Sampling
    """The settings the pack was validated with."""
    policy: PolicyShape
    verifier: VerifierShape | None
    """None: the pack has no PRM."""
    table: Mapping[str, Any] | None
    """The strategy table as JSON, or None."""
    controller: Mapping[str, Any] | None = None
    """What was fitted for the controller, as :mod:`edge_tts.search.fit` reads it; None: nothing."""
    recipe: Recipe | None = None
    """None for a pack whose policy is not assembled from parts."""
    source: Path | None = None
    """Folder with the parts to assemble; None for a pack that is complete already."""
    format: FormatName = "equations"
    """How the policy is asked: "equations", or "text" for a chat model."""
    model: Entry | HubFile | None = None
    """Where the file of a model comes from that is used without a pack."""
    gguf: Path | None = None
    """That file, once it is on this machine."""
    program_verifier: Mapping[str, Any] | None = None
    """What :class:`edge_tts.runtimes.program_verifier.SignWeights` reads; None: programs are not scored."""
    writes_programs: bool = False
    """Whether a chat model is at its best writing a program where the question is a computation."""
    has_text_examples: bool = False
    """Whether worked examples are shown where the model computes in words."""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".strip()

    @property
    def reasoning(self) -> FormatName:
        """The format that the model is at its best in."""
        return "program" if self.writes_programs else self.format

    @property
    def is_bare(self) -> bool:
        """Whether this is a model used without a pack: a GGUF, and no folder with a manifest."""
        return self.folder == Path()

    @property
    def is_known(self) -> bool:
        """Whether the policy's file is one whose content this project pins or has written itself."""
        return self.recipe is not None or (isinstance(self.model, Entry) and self.model.sha256 is not None)

    @property
    def policy_path(self) -> Path:
        return self.gguf or self.folder / POLICY

    @property
    def verifier_path(self) -> Path | None:
        return self.folder / VERIFIER if self.verifier else None

    @property
    def tokenizer_path(self) -> Path | None:
        return self.folder / TOKENIZER if self.verifier else None


def fields_of(reasoning: FormatName) -> dict[str, Any]:
    """The fields of :class:`Pack` that say how its policy reasons."""
    return {
        "format": "equations" if reasoning == "equations" else "text",
        "writes_programs": reasoning == "program",
    }


@dataclass(frozen=True)
class _Described:
    """The keys of ``manifest.json``; all but ``reasoning`` are fields of :class:`Pack`.

    Raises PackError for prompts that are missing, or that a chat model, which has a template of its own, does not read.
    """

    name: _Named
    version: _Named
    licence: _Named
    sampling: Sampling
    policy: PolicyShape
    reasoning: FormatName = "equations"
    prompts: PromptFormat | None = None
    calculator: CalculatorFormat | None = None
    verifier: VerifierShape | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if self.reasoning == "equations" and self.prompts is None:
            raise PackError("prompts is missing; correct the file")
        if self.reasoning != "equations" and (self.prompts or self.calculator):
            raise PackError(
                f"prompts and calculator are for packs that write equations, and reasoning is {self.reasoning!r}; "
                "leave them out"
            )

    def fields(self) -> dict[str, Any]:
        """The same as fields of :class:`Pack`."""
        same = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        reasoning = fields_of(same.pop("reasoning"))
        return {**same, **reasoning, "prompts": self.prompts or PromptFormat()}


def read(folder: Path) -> Pack:
    """The pack whose manifest is in ``folder``. Only the manifest and the strategy table are read.

    Raises PackError where the manifest is missing, damaged, of another format or incomplete.
    """
    path = folder / MANIFEST
    content = read_json(path)
    if content.get("checksum") != checksum(content):
        raise PackError(f"{path} is damaged: its checksum does not match its content; restore the file")
    if content.get("format") != FORMAT:
        raise PackError(
            f"{path} has pack format {content.get('format')!r}, and this version reads format {FORMAT}; "
            "use a pack made for this version, or install the version of edge-reasoning-runtime that made the pack"
        )
    files = content.get("files")
    if not isinstance(files, dict) or not set(files) <= FILES:
        raise PackError(f"{path}: files must be an object with names from {sorted(FILES)}, found {files!r}")
    records = {name: typed(FileRecord, record, f"{path}, files.{name}", PackError) for name, record in files.items()}
    stated = {key: value for key, value in content.items() if key not in ("format", "checksum", "files")}
    described = typed(_Described, stated, str(path), PackError)
    table = read_json(folder / TABLE) if TABLE in files else None
    controller = read_json(folder / CONTROLLER) if CONTROLLER in files else None
    return Pack(**described.fields(), folder=folder, files=records, table=table, controller=controller)


def write(pack: Pack, folder: Path) -> None:
    """Write the manifest of ``pack`` into ``folder``, to be read by ``read``. Raises OSError."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": pack.name,
        "version": pack.version,
        "licence": pack.licence,
        "files": {name: dataclasses.asdict(record) for name, record in sorted(pack.files.items())},
        "sampling": dataclasses.asdict(pack.sampling),
        "policy": dataclasses.asdict(pack.policy),
        "verifier": dataclasses.asdict(pack.verifier) if pack.verifier else None,
        "recipe": dataclasses.asdict(pack.recipe) if pack.recipe else None,
    }
    if pack.format == "equations":
        content["prompts"] = dataclasses.asdict(pack.prompts)
        content["calculator"] = dataclasses.asdict(pack.calculator) if pack.calculator else None
    else:
        content["reasoning"] = pack.reasoning
    content["checksum"] = checksum(content)
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's JSON, written without the checksum, with sorted keys and no spaces."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Raises PackError where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackError(f"{path} is missing; restore the file, or give another folder than {path.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(f"{path} is damaged and cannot be read ({error}); restore the file") from error
    if not isinstance(content, dict):
        raise PackError(
            f"{path} is damaged: it contains a {type(content).__name__} instead of an object; restore the file"
        )
    return content
