"""Files damaged at random: each is used as far as it can be, or refused in one sentence, in bounded time.

Models are loaded in processes of their own, where a crash of native code is a BackendError of ``isolate``.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import standin
from mutation import ALTOGETHER, Damage, all_used_or_refused, damaged, damaged_json, damaged_toml
from tiny_model import write_tiny_model

from edge_tts import Solver, plan
from edge_tts.bench import controller_replay
from edge_tts.bench.loading import load_study
from edge_tts.bench.pool import Part, Pool, Sample
from edge_tts.bench.records import CONFIG, RECORDS, SAMPLES, Record, open_study
from edge_tts.bench.study import RUNS, Grid, Run, Study
from edge_tts.core import Usage
from edge_tts.errors import BackendError, PackError
from edge_tts.files.json_lines import Appender
from edge_tts.packs import bare_model, catalogue, manifest, pack
from edge_tts.packs.prm_check import prm_problems
from edge_tts.planning.shapes import policy_shape, verifier_shape
from edge_tts.questions.reading import Question
from edge_tts.search import fit
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.confidence import Standing

TESTS = Path(__file__).parent

# --- models --------------------------------------------------------------------------------------------


def loaded(kind: str, paths: list[Path]) -> list[dict[str, str]]:
    """What became of each model in a process of its own; see ``loading_child.py``."""
    lines = "".join(json.dumps({"kind": kind, "path": str(path)}) + "\n" for path in paths)
    script = [sys.executable, str(TESTS / "loading_child.py")]
    done = subprocess.run(script, input=lines, capture_output=True, text=True, timeout=500)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(paths), done.stderr
    wrong = [answer for answer in found if "traceback" in answer or "\n" in answer.get("text", "")]
    assert not wrong, "".join(f"\n{answer}" for answer in wrong)[-6000:]
    return found


def in_header(whole: bytes, chance: random.Random) -> bytes:
    return damaged(whole, chance, last=len(whole) - 40_000)


def in_tensors(whole: bytes, chance: random.Random) -> bytes:
    return damaged(whole, chance, first=len(whole) - 40_000)


@pytest.mark.parametrize(("place", "shares"), [(in_header, 3), (in_tensors, 1)])
def test_a_damaged_model(place: Damage, shares: int, tmp_path: Path) -> None:
    whole = write_tiny_model(tmp_path / f"{place.__name__}.gguf")
    assert loaded("policy", [whole]) == [{"done": "2"}]
    kept: list[Path] = []

    def use(path: Path) -> None:
        policy_shape(path)
        bare_model.find_model(path)
        if path.read_bytes() != before:
            kept.append(Path(shutil.copy(path, tmp_path / f"m{len(kept)}.gguf")))

    before = whole.read_bytes()
    all_used_or_refused(whole, place, use, shares)
    crashed = [path for path, answer in zip(kept, loaded("policy", kept), strict=True) if "signal" in answer]
    for path in crashed[:: 1 if ALTOGETHER > 1000 else 4]:
        with (
            pytest.raises(BackendError, match="the process that holds the models ended") as caught,
            Solver(model=path, profile="laptop-cpu", generations=2, max_tokens=8, isolate=True) as solver,
        ):
            solver.solve("What is 2 + 3?", "majority:n=2", format="text")
        assert "\n" not in str(caught.value)
        with pytest.raises(PackError, match=r"llama\.cpp ends with SIG"):
            Solver(model=path, profile="laptop-cpu", generations=2, max_tokens=8)
    print(f"{len(kept)} passed the header's checks, {len(crashed)} crashed llama.cpp")


def test_a_damaged_adapter(tmp_path: Path) -> None:
    """As assembling and merging read it."""
    from edge_tts.packs.merge_adapter import read_adapter

    made = standin.write_pack(tmp_path)
    all_used_or_refused(made.pack.folder / "adapter.gguf", damaged, read_adapter)


def test_a_damaged_verifier(tmp_path: Path) -> None:
    whole, tokenizer = tmp_path / "prm.onnx", tmp_path / "tokenizer.json"
    standin.write_tokenizer(tokenizer)
    standin.write_prm(whole, tokenizer)
    assert loaded("verifier", [whole]) == [{"done": "0"}]
    kept: list[Path] = []

    def use(path: Path) -> None:
        folder = tmp_path / f"v{len(kept)}"
        folder.mkdir()
        shutil.copy(tokenizer, folder)
        kept.append(Path(shutil.copy(path, folder / "prm.onnx")))
        verifier_shape(path)

    all_used_or_refused(whole, damaged, use, 2)
    found = loaded("verifier", kept)
    crashed = [path for path, answer in zip(kept, found, strict=True) if "signal" in answer]
    for path in crashed[:3]:
        (problem,) = prm_problems(path, path.with_name("tokenizer.json"))
        assert "ONNX Runtime ends with SIG" in problem
    print(f"{len(crashed)} of {len(found)} crashed ONNX Runtime")
    refused = [answer for answer in found if "signal" in answer or answer["done"] != "0"]
    assert len(refused) > len(found) / 2


# --- packs ---------------------------------------------------------------------------------------------


def test_a_damaged_manifest(tmp_path: Path) -> None:
    made = standin.write_pack(tmp_path)
    folder = made.pack.folder

    def damage(whole: bytes, chance: random.Random) -> bytes:
        """Half of the time with a checksum that fits, as of a mistake of the pack's maker."""
        found = damaged_json(whole, chance)
        try:
            content = json.loads(found)
            return json.dumps({**content, "checksum": manifest.checksum(content)}).encode()
        except (ValueError, TypeError, RecursionError):
            return found

    def use(_: Path) -> None:
        described = manifest.read(folder)
        pack.pack_problems(described)

    all_used_or_refused(folder / manifest.MANIFEST, damage, use, 2)


def test_a_damaged_strategy_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    cells = [["weighted", "beam:m=4"]] * 4 + [["revise:s=4", "lookahead:n=8,m=4,k=1"]]
    table = {"format": 1, "probe": 4, "edges": [0.4, 0.3, 0.2, 0.1], "budgets": [8, 16], "cells": cells}
    path.write_text(json.dumps({**table, "evidence": {"problem_ids": ["a"]}}), encoding="utf-8")

    def use(path: Path) -> None:
        table = StrategyTable.parse(manifest.read_json(path))
        for score in (0.0, 0.4, 1.0):
            for generations in (table.probe + 1, table.probe + 64):
                table.choose(table.bin(score), generations)

    all_used_or_refused(path, damaged_json, use)


def test_a_damaged_controllers_fit(tmp_path: Path) -> None:
    path = tmp_path / "controller.json"
    shutil.copy(bare_model.FITS / "qwen2.5-coder-1.5b.json", path)
    standing = Standing(8, 5, 2, logprob=-0.3, score=0.7, other_samples=2, other_votes=1)

    def use(path: Path) -> None:
        for found in fit.parse(manifest.read_json(path)).values():
            assert 0 <= found.calibration.confidence(standing) <= 1
            assert 0 <= (found.calibration.prospect(standing) or 0.0) <= 1

    all_used_or_refused(path, damaged_json, use)


# --- what the user writes, and what is saved for the user ------------------------------------------------


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    return tmp_path


def test_a_damaged_catalogue(user: Path) -> None:
    built_in = catalogue.BUILT_IN.read_text(encoding="utf-8").split("\n[models.")
    path = catalogue.user_catalogue()
    path.write_text("[models." + "\n[models.".join(built_in[1:3]), encoding="utf-8")

    def use(_: Path) -> None:
        for entry in catalogue.entries().values():
            bare_model.least_memory_mb(entry)
        chosen, _ = catalogue.choose_default(2000, bare_model.least_memory_mb)
        if chosen:
            plan(pack=bare_model.catalogued(chosen), profile="laptop-cpu")

    all_used_or_refused(path, damaged_toml, use, 2)


# --- studies -------------------------------------------------------------------------------------------

GRID = Grid(("majority", "weighted"), (2, 4), (), 1)
PROBLEMS = tuple(Question(str(number), f"What is {number} + 1?", str(number + 1)) for number in range(3))


def write_study(folder: Path) -> None:
    data = {"name": "sums", "sha256": "0" * 64, "problems": len(PROBLEMS)}
    about = {"pack": "tiny", "reasoning_format": "text", "policy_parameters": 9, "verifier_parameters": None}
    open_study(folder, {**about, "data": data, "sampling": {}, "seeds": 1, "made_on": {}})
    drawn = Sample((1, 2), (Part("x", 2, -0.5, 0),), "end", ("x",), "2", True)
    with Appender(folder / SAMPLES) as samples, Appender(folder / RECORDS) as records:
        for problem in PROBLEMS:
            samples.add([Pool(problem.id, 0, (1, 2, 3), (drawn,) * 4, None, 1.0).to_dict()])
            for strategy, budget in GRID.sampled:
                usage = Usage(30 * budget, 20 * budget, policy_flops=1e6 * budget, seconds=1.0)
                detail = {"right_samples": budget, "mean_score": 0.5}
                made = Record.of(problem, strategy, budget, 0, "2", "complete", usage, 0.5, (), detail)
                records.add([made.to_dict()])
    with Appender(folder / RUNS) as runs:
        runs.add([asdict(Run(3, 10.0, 5.0, 0.0, 30.0, "estimated"))])


@pytest.mark.parametrize(("name", "shares"), [(CONFIG, 1), (RECORDS, 2), (SAMPLES, 1), (RUNS, 1)])
def test_a_damaged_study(name: str, shares: int, tmp_path: Path) -> None:
    write_study(tmp_path)

    def damage(whole: bytes, chance: random.Random) -> bytes:
        """One line of the file, or its bytes."""
        if name == CONFIG:
            return damaged_json(whole, chance)
        if chance.random() < 0.2:
            return damaged(whole, chance)
        lines = whole.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = damaged_json(lines[at], chance)
        return b"\n".join(lines) + b"\n"

    def use(_: Path) -> None:
        study = Study(tmp_path, PROBLEMS, GRID)
        study.summary()
        study.pools()
        study.done.clear()
        study.pools()
        load_study(tmp_path)
        controller_replay.read(tmp_path, None)

    all_used_or_refused(tmp_path / name, damage, use, shares)
