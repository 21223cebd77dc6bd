"""Commands killed at any moment: what was finished stays, the same command ends the work, and results are those of an
undisturbed run. ``EDGE_REASON_TEST_KILLS`` sets how many kills each gets."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub_server
import pytest
import standin
from killed_commands import KILLS, commands
from tiny_model import write_tiny_model

from edge_tts.bench.records import RECORDS, SAMPLES
from edge_tts.files.json_lines import read_lines
from edge_tts.packs import manifest, model_files, pack
from edge_tts.packs.sources import HubFile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

REPO, FILE = "maker/Tiny-GGUF", "tiny-q4_k_m.gguf"
CONTENT = b"GGUF" + random.Random(0).randbytes(60_000)


def names(folder: Path) -> set[str]:
    """Of everything in ``folder`` but locks."""
    return {path.name for path in folder.iterdir()} - {".lock"}


# --- solve --file --------------------------------------------------------------------------------


def rows(out: Path) -> list[dict[str, Any]]:
    """Whole rows."""
    lines = out.read_bytes().split(b"\n") if out.exists() else [b""]
    return [json.loads(line) for line in lines[:-1]]


def test_a_file_of_questions(tmp_path: Path) -> None:
    """Its two versions differ in order and in one question, so that rows are replaced and put in order all the time."""
    one, other, out, whole = (tmp_path / f"{name}.jsonl" for name in ("one", "other", "out", "whole"))
    questions = [{"id": i, "question": "x" * (i + 1)} for i in range(60)]
    changed = [{**q, "question": "y" * 5000} if q["id"] == 30 else q for q in reversed(questions)]
    for file, content in ((one, questions), (other, changed)):
        file.write_text("".join(json.dumps(q) + "\n" for q in content), encoding="utf-8")
    with commands(tmp_path / "log") as forks:
        assert forks.run("solve_file", one, whole)[0] == 0
        killed, known = 0, set[int]()
        for turn in range(KILLS):
            killed += forks.kill("solve_file", (one, other)[turn // 3 % 2], out)
            kept = {row["id"] for row in rows(out)}
            assert kept >= known - {30}
            known = kept
        assert killed > KILLS / 3
        assert len(known) >= 59
        assert forks.run("solve_file", one, out)[0] == 0
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == {"one.jsonl", "other.jsonl", "out.jsonl", "whole.jsonl", "log"}


# --- bench run -----------------------------------------------------------------------------------


def lines_of(study: Path, name: str) -> list[Any]:
    """Without what depends a little on what was evaluated before: costs, and the last digits of probabilities."""
    return [without(row, "usage", "seconds", "prefill", "logprob") for _, row in read_lines(study / name)]


def without(value: Any, *names: str) -> Any:
    if isinstance(value, dict):
        return {name: without(part, *names) for name, part in value.items() if name not in names}
    return [without(part, *names) for part in value] if isinstance(value, list) else value


def by_problem(study: Path, name: str) -> list[list[str]]:
    """The lines of each problem, in order."""
    lines = lines_of(study, name)
    return [sorted(json.dumps(line) for line in lines if line["id"] == id) for id in sorted({x["id"] for x in lines})]


def assert_alike(study: Path, whole: Path, name: str) -> None:
    """Both have the same lines of the same problems, but for one near tie at most.

    What a problem was evaluated together with changes the last digits of its logits.
    """
    different = [a for a, b in zip(by_problem(study, name), by_problem(whole, name), strict=True) if a != b]
    assert len(different) <= 1


def settings(folder: Path, problems: int) -> tuple[object, ...]:
    """Of a study of a tiny model."""
    data, model = folder / "data.jsonl", folder / "tiny-chat.gguf"
    rows = ({"id": str(i), "question": f"{i} times 14?", "answer": str(14 * i)} for i in range(problems))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_tiny_model(model)
    how = ("--profile", "laptop-cpu", "--format", "text", "--strategies", "greedy,majority", "--budgets", "1,2")
    return ("--data", data, "--model", model, *how)


def test_a_study(tmp_path: Path) -> None:
    whole, study, options = tmp_path / "whole", tmp_path / "study", settings(tmp_path, 5)

    def run(out: Path) -> tuple[object, ...]:
        return ("--out", out, *options, "--parallel", 2)

    with commands(tmp_path / "log") as forks:
        code, said = forks.run("study", *run(whole))
        assert code == 0, said
        killed = 0
        for _ in range(KILLS):
            had = [lines_of(study, name) for name in (SAMPLES, RECORDS)]
            if len(had[1]) == 5 * 3:
                shutil.rmtree(study)
                had = [[], []]
            killed += forks.kill("study", *run(study))
            for name, before in zip((SAMPLES, RECORDS), had, strict=True):
                assert lines_of(study, name)[: len(before)] == before
        assert killed > KILLS / 3
        code, said = forks.run("study", *run(study))
        assert (code, "Traceback" in said) == (0, False), said
    for name in (SAMPLES, RECORDS):
        assert_alike(study, whole, name)


# --- pack assemble -------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_pack(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is assembled anew all the time, since its version changes; in between it is deleted."""
    made = standin.write_pack(tmp_path)
    parts, packs = made.pack.folder, home / "packs"
    monkeypatch.setattr(pack, "BUILT_IN", parts.parent)
    run = ("assemble", parts.parent, made.base)
    with commands(tmp_path / "log") as forks:
        assert forks.run(*run)[0] == 0
        policy = (packs / "tiny" / "policy.gguf").read_bytes()
        killed = 0
        for turn in range(KILLS):
            if turn % 5 == 0:
                shutil.rmtree(packs / "tiny", ignore_errors=True)
            manifest.write(replace(made.pack, version=f"{turn}.0"), parts)
            killed += forks.kill(*run)
            if (packs / "tiny").exists():  # whole, be it the new one or the one before
                there = manifest.read(packs / "tiny")
                assert not any(record.problem(there.folder / name) for name, record in there.files.items())
        assert killed > KILLS / 3
        assert forks.run(*run)[0] == 0
    ready = pack.find_pack("tiny")
    assert (ready.version, pack.is_assembled(ready)) == (f"{KILLS - 1}.0", True)
    assert ready.policy_path.read_bytes() == policy
    assert names(packs) == {"tiny"}


def test_a_folder_that_was_to_be_replaced_is_put_back(home: Path, tmp_path: Path) -> None:
    """As a kill between the two steps leaves it."""
    made = standin.write_pack(tmp_path)
    run = ("assemble", made.pack.folder.parent, made.base)
    with commands(tmp_path / "log") as forks:
        assert forks.run(*run)[0] == 0
        before = (home / "packs" / "tiny" / "policy.gguf").stat()
        (home / "packs" / "tiny").rename(home / "packs" / ".replaced-tiny")
        assert forks.run(*run)[0] == 0
    assert (home / "packs" / "tiny" / "policy.gguf").stat().st_ino == before.st_ino
    assert names(home / "packs") == {"tiny"}


# --- model pull ----------------------------------------------------------------------------------


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    with hub_server.serve() as server:
        server.patch(monkeypatch, tmp_path)
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        server.add(REPO, {FILE: CONTENT})
        server.seconds = 0.1
        yield server


def test_a_download(hub: hub_server.HubServer, tmp_path: Path) -> None:
    source = HubFile(REPO)
    blobs = model_files.hub_folder(REPO) / "blobs"
    begun = blobs / f"{hashlib.sha256(CONTENT).hexdigest()}.incomplete"
    with commands(tmp_path / "log") as forks:
        assert forks.run("pull", REPO)[0] == 0
        killed = finished = 0
        for _ in range(KILLS):
            if model_files.find(source):
                shutil.rmtree(model_files.hub_folder(REPO))
                finished += 1
            had = begun.stat().st_size if begun.exists() else 0
            killed += forks.kill("pull", REPO)
            if path := model_files.find(source):
                assert path.read_bytes() == CONTENT
            else:
                kept = begun.read_bytes() if begun.exists() else b""
                assert CONTENT.startswith(kept)
                assert len(kept) >= had - 1  # of a complete one, a byte is asked for again
        assert killed > KILLS / 3
        assert finished
        code, said = forks.run("pull", REPO)
        assert (code, "Traceback" in said) == (0, False), said
    found = model_files.find(source)
    assert found
    assert found.read_bytes() == CONTENT
    assert names(blobs) == {hashlib.sha256(CONTENT).hexdigest()}


def test_the_next_process_goes_on_where_a_killed_one_stopped(hub: hub_server.HubServer, tmp_path: Path) -> None:
    """It waits while the other one lives."""
    hub.seconds = 2.0
    with commands(tmp_path / "one") as first, commands(tmp_path / "two") as second:
        pid = first.start("pull", REPO)
        while not hub.ranges:
            time.sleep(0.01)
        time.sleep(1)
        waiting = second.start("pull", REPO)
        time.sleep(0.5)
        assert hub.ranges == [None]
        hub.seconds = 0.0
        os.kill(pid, signal.SIGKILL)
        assert first.ended()[0] == -signal.SIGKILL
        assert waiting
        code, said = second.ended()
    assert (code, "verified" in said) == (0, True), said
    (_, begun) = hub.ranges
    assert begun
    assert 0 < int(begun.removeprefix("bytes=").rstrip("-")) < len(CONTENT)
    assert model_files.find(HubFile(REPO)) is not None


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_at_any_moment_is_one_word(hub: hub_server.HubServer, home: Path, tmp_path: Path) -> None:
    made = standin.write_pack(tmp_path)
    runs: list[tuple[object, ...]] = [
        ("study", "--out", tmp_path / "study", *settings(tmp_path, 3)),
        ("assemble", made.pack.folder.parent, made.base),
        ("pull", REPO),
    ]
    with commands(tmp_path / "log") as forks:
        for name, *arguments in runs:
            assert forks.run(name, *arguments)[0] == 0
            interrupted = 0
            for _ in range(max(10, KILLS // 4)):
                for done in (tmp_path / "study", home / "packs" / "tiny", model_files.hub_folder(REPO)):
                    shutil.rmtree(done, ignore_errors=True)
                code, said = forks.interrupt(name, *arguments)
                assert code in (0, 130, -signal.SIGINT), said
                assert "Traceback" not in said
                if code == 130:
                    interrupted += 1
                    assert said.splitlines()[-1] == "interrupted"
                assert forks.run(name, *arguments)[0] == 0
                assert not [path for path in home.rglob("*") if ".building-" in path.name]
            assert interrupted
