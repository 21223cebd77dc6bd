"""Assemble a built-in pack from trained parts: adapter, PRM, tokenizer, card, manifest.

    python -m edge_tts.export.train.assemble_pack --base BASE.gguf --adapter adapter.gguf --prm prm.onnx \\
        --tokenizer tokenizer.json --figures figures.json --out edge_tts/packs/builtin/smol-math

``bench fit --pack`` adds what `auto` does with it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_tts.core import Sampling
from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.files.atomic import publish
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import manifest
from edge_tts.packs.base_model import SMOLLM2_135M, BaseModel
from edge_tts.packs.manifest import QUANTISATIONS, Pack, Recipe
from edge_tts.packs.merge_adapter import merge
from edge_tts.packs.pack import pack_problems
from edge_tts.planning.shapes import policy_shape, verifier_shape
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat


@dataclass(frozen=True)
class Parts:
    """Where the trained parts are."""

    base: Path
    adapter: Path
    """A LoRA GGUF, as :func:`edge_tts.export.adapter.convert` writes it."""
    prm: Path
    tokenizer: Path
    """The PRM's."""
    figures: Mapping[str, Any]
    """Measurements for the card: label to figure."""
    quantisation: str = Recipe.quantisation
    """How the merged policy is stored, a key of ``manifest.QUANTISATIONS``."""


def build(parts: Parts, out: Path, version: str, sampling: Sampling, base: BaseModel = SMOLLM2_135M) -> Pack:
    """Write the built-in pack ``out``, named after its folder; an existing one is replaced.

    The policy is merged once on the way, to record its size and sha256. Raises InputError where a part does not fit,
    PackError where one is damaged.
    """
    if problem := base.record.problem(parts.base):
        raise InputError(f"the base model {parts.base} {problem}; train and assemble on the pinned {base.file}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as temporary:
        source, whole = Path(temporary) / out.name, Path(temporary) / "whole"
        source.mkdir()
        whole.mkdir()
        adapter, policy = source / manifest.ADAPTER, whole / manifest.POLICY
        shutil.copyfile(parts.adapter, adapter)
        files = {manifest.POLICY: merge(parts.base, adapter, policy, parts.quantisation)}
        pack = Pack(
            name=out.name,
            version=version,
            licence="Apache-2.0",
            folder=whole,
            files=files,
            prompts=PromptFormat(),
            calculator=CalculatorFormat(),
            sampling=sampling,
            policy=policy_shape(policy),
            verifier=verifier_shape(parts.prm),
            table=None,
            recipe=Recipe(base, FileRecord.of(adapter), parts.quantisation),
        )
        (source / manifest.CARD).write_text(card(pack, parts.figures), encoding="utf-8")
        for name, part in ((manifest.VERIFIER, parts.prm), (manifest.TOKENIZER, parts.tokenizer)):
            shutil.copyfile(part, source / name)
        for path in source.iterdir():
            if path.name != manifest.ADAPTER:
                files[path.name] = FileRecord.of(path)
                shutil.copyfile(path, whole / path.name)
        if problems := pack_problems(pack):
            raise InputError(f"the parts do not make a pack: {'; '.join(problems)}")
        manifest.write(pack, source)
        publish(source, out)
    return replace(pack, folder=out)


def card(pack: Pack, figures: Mapping[str, Any]) -> str:
    """The model card as Markdown: what the pack consists of, what was measured, and what it is not suited for."""
    base, stored = (pack.recipe.base.file, pack.recipe.quantisation) if pack.recipe else ("none", "given")
    prm = pack.verifier.parameters / 1e6 if pack.verifier else 0
    rows = "\n".join(f"| {label} | {figure} |" for label, figure in figures.items())
    return f"""# {pack.name} {pack.version}

A pack for grade-school mathematics in English, one equation a line, then `{pack.prompts.answer_marker}` and the answer.

- Policy: {pack.policy.parameters / 1e6:.0f}M parameters. LoRA adapter on {base}, merged and stored as \
{stored} on first use.
- Verifier: {prm:.0f}M parameters, a process reward model in ONNX.
- Arithmetic: the runtime's calculator writes results where the policy opens an equation.
- Sampling it was validated with: temperature {pack.sampling.temperature}, top-k {pack.sampling.top_k}.
- Licence: {pack.licence}, as the base model's.

| measured | |
|---|---|
{rows}

Not for anything where a wrong answer costs something: answers are often wrong, and the verifier's score is no proof.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "adapter", "prm", "tokenizer", "figures", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--temperature", type=float, default=Sampling().temperature)
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default=Recipe.quantisation)
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text(encoding="utf-8"))
    files = (options.base, options.adapter, options.prm, options.tokenizer)
    parts = Parts(*files, figures, options.quantisation)
    pack = build(parts, options.out, options.version, Sampling(temperature=options.temperature))
    print(f"{pack.folder}: {sum(path.stat().st_size for path in pack.folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(command.run(main))
