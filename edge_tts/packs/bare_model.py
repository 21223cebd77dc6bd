"""A model used without a pack: a GGUF as it is, asked in the ``text`` format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from edge_tts.core import Sampling
from edge_tts.errors import EdgeError
from edge_tts.files.atomic import Progress, silent
from edge_tts.packs import catalogue, download, model_files
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.manifest import Pack, read_json
from edge_tts.packs.pack import DEFAULT, find_pack, pack_names
from edge_tts.packs.sources import HubFile
from edge_tts.planning.memory import memory_plan
from edge_tts.planning.shapes import policy_shape
from edge_tts.reasoning.formats import TRACE_TOKENS
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.config import EngineConfig, PolicyShape

FITS = Path(__file__).parent / "fits"
"""What was fitted for catalogued models, by name."""
PROGRAM_VERIFIER = FITS / "program-verifier.json"
VARIABLE = "EDGE_REASON_MODEL"
TEMPERATURE = 0.7
"""Of models whose best is not known: what most makers of small chat models suggest."""
LEAST_WIDTH, LEAST_CONTEXT = 4, 1024
"""A model fits a cap where this many sequences of this many tokens do."""


def find_model(reference: str | Path, progress: Progress = silent) -> Pack:
    """The model that ``reference`` names: the path of a GGUF, a catalogue name, or a hub id ``owner/repo[:file]``.

    A catalogued model that is not on this machine is described and not fetched; one known by its hub id alone is
    fetched, since nothing else tells its sizes. The name of a pack means its model with all the pack brings. Raises
    InputError, PackError, and what fetching raises.
    """
    if str(reference) in pack_names():
        return find_pack(str(reference))
    model = catalogue.resolve(str(reference))
    if isinstance(model, Entry):
        return catalogued(model)
    if isinstance(model, HubFile):
        path = download.locate(model, progress)
        return replace(_described(path.stem, policy_shape(*model_files.split_parts(path))), gguf=path, model=model)
    known = next((e for e in catalogue.entries().values() if _is_file_of(e, model.path)), None)
    described = catalogued(known) if known else _described(model.path.stem, policy_shape(*model.parts))
    return replace(described, gguf=model.path, model=None)


def catalogued(entry: Entry) -> Pack:
    """The model of a catalogue entry; its file is only looked for on this machine."""
    suggested = entry.sampling
    sampling = Sampling(suggested.temperature, suggested.top_k, TRACE_TOKENS["text"], top_p=suggested.top_p)
    described = replace(_described(entry.name, entry.shape), licence=entry.licence, sampling=sampling, model=entry)
    fitted = FITS / f"{entry.name}.json"
    programs = entry.formats[0].name == "program"
    described = replace(
        described,
        writes_programs=programs,
        has_text_examples=any(format.name == "text" and format.examples for format in entry.formats),
        program_verifier=read_json(PROGRAM_VERIFIER) if programs else None,
        controller=read_json(fitted) if fitted.exists() else None,
    )
    return replace(described, gguf=model_files.find(entry))


def default_model(memory_mb: float, progress: Progress | None = silent) -> tuple[Pack, str]:
    """What answers where the user names neither a model nor a pack, and why; on this machine unless ``progress`` is
    None.

    What the environment variable ``EDGE_REASON_MODEL`` names, else the best catalogued model that fits ``memory_mb``;
    offline and with none fetched, the built-in pack.
    """
    if named := os.environ.get(VARIABLE):
        return find_model(named, progress or silent), f"{VARIABLE} names it"
    choice, reason = catalogue.choose_default(memory_mb, least_memory_mb, downloads=not _is_offline())
    if choice is not None:
        if progress is None:
            return catalogued(choice), reason
        try:
            return replace(catalogued(choice), gguf=download.locate(choice, progress)), reason
        except EdgeError as error:
            choice, _ = catalogue.choose_default(memory_mb, least_memory_mb, downloads=False)
            if choice is not None:
                return catalogued(choice), "the best on this machine"
            reason = str(error)
    return find_pack(None), (
        f"{reason}; so the built-in pack {DEFAULT} answers, which is tiny and mostly wrong beyond short sums"
    )


def least_memory_mb(entry: Entry) -> float:
    """Memory in MiB that a useful configuration of ``entry`` takes."""
    return memory_plan(entry.shape, None, EngineConfig(LEAST_WIDTH, LEAST_CONTEXT)).total


def _described(name: str, shape: PolicyShape) -> Pack:
    return Pack(
        name=name,
        version="",
        licence="unknown",
        folder=Path(),
        files={},
        prompts=PromptFormat(),
        calculator=None,
        sampling=Sampling(TEMPERATURE, max_tokens=TRACE_TOKENS["text"]),
        policy=shape,
        verifier=None,
        table=None,
        format="text",
    )


def _is_file_of(entry: Entry, path: Path) -> bool:
    """Whether ``path`` is, by name and size, the file of ``entry``."""
    return path.name == entry.file and path.stat().st_size == entry.size


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
