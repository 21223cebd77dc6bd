"""Packs built from files, zipped and installed: nothing is half written, nothing is trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import standin
from click.testing import CliRunner

from edge_tts import cli
from edge_tts.errors import EdgeError, InputError, PackError
from edge_tts.files.folders import data_folder
from edge_tts.packs import manifest, pack
from edge_tts.packs.archive import install_pack, write_zip
from edge_tts.packs.build import PackFiles, PackSettings, build_pack, read_prompts
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat

SETTINGS = PackSettings("MIT", version="2.1")


@pytest.fixture
def sources(tiny: standin.StandIn, tmp_path: Path) -> PackFiles:
    """A whole policy with PRM and tokenizer, as files of a user."""
    whole = pack.prepare_pack(pack.find_pack(standin.NAME), base=tiny.base)
    assert whole.verifier_path is not None
    (tmp_path / "card.md").write_text("# mine\n")
    return PackFiles(whole.policy_path, whole.verifier_path, whole.tokenizer_path, card=tmp_path / "card.md")


@pytest.fixture
def built(sources: PackFiles, tmp_path: Path) -> pack.Pack:
    return build_pack(sources, SETTINGS, tmp_path / "made" / "mine")


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_built_pack_is_sound_and_says_what_it_is(built: pack.Pack) -> None:
    again = manifest.read(built.folder)
    assert again == built
    assert pack.pack_problems(again) == []
    assert (again.name, again.version, again.licence, again.table) == ("mine", "2.1", "MIT", None)
    assert again.policy == pack.find_pack(standin.NAME).policy
    assert again.verifier == pack.find_pack(standin.NAME).verifier
    assert entries(built.folder.parent) == {"mine"}


def test_accounts_beside_the_models_go_with_them(sources: PackFiles, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    assert sources.verifier is not None
    assert sources.tokenizer is not None
    names = (manifest.VERIFIER, manifest.TOKENIZER, manifest.POLICY)
    for name, path in zip(names, (sources.verifier, sources.tokenizer, sources.policy), strict=True):
        (folder / name).write_bytes(path.read_bytes())
    (folder / manifest.POLICY_ACCOUNT).write_text('{"recommended": "Q4_0"}')
    (folder / manifest.VERIFIER_ACCOUNT).write_text('{"quant": "int8", "good": false, "forced": true}')
    made = build_pack(
        PackFiles(folder / names[2], folder / names[0], folder / names[1]), SETTINGS, tmp_path / "with-accounts"
    )
    assert {manifest.POLICY_ACCOUNT, manifest.VERIFIER_ACCOUNT} <= set(made.files)
    told = CliRunner().invoke(cli.group, ["pack", "info", str(made.folder), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["verifier_account"] == {"quant": "int8", "good": False, "forced": True}
    write_zip(made, tmp_path / "with-accounts.zip")
    assert install_pack(tmp_path / "with-accounts.zip").files == made.files


SET_TABLE = """
import json, sys
from pathlib import Path
from edge_tts.packs.build import set_fits
for _ in range(12):
    set_fits(Path(sys.argv[1]), json.loads(sys.argv[2]), None)
"""


def test_two_processes_that_set_the_table_take_turns(built: pack.Pack) -> None:
    (built.folder.parent / ".building-other").mkdir()  # of a third one, which does not replace a folder
    table = {"probe": 4, "edges": [0.8, 0.6, 0.4, 0.2], "budgets": [4], "cells": [["majority"]] * 5}
    arguments = [[str(built.folder), json.dumps({**table, "by": name})] for name in ("one", "two")]
    running = [subprocess.Popen([sys.executable, "-c", SET_TABLE, *one], stderr=subprocess.PIPE) for one in arguments]
    said = [process.communicate(timeout=300)[1] for process in running]
    assert ([process.returncode for process in running], said) == ([0, 0], [b"", b""])
    again = manifest.read(built.folder)
    assert pack.pack_problems(again) == []
    assert again.table is not None
    assert again.table["by"] in ("one", "two")
    assert entries(built.folder.parent) == {"mine", ".lock", ".building-other"}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux only")
def test_folders_whose_names_are_not_utf8(sources: PackFiles, tiny: standin.StandIn, tmp_path: Path) -> None:
    made = build_pack(sources, SETTINGS, tmp_path / "caf\udce9" / "mine")
    assert pack.pack_problems(made) == []
    parts = shutil.copytree(tiny.pack.folder, tmp_path / "h\udce9" / "tiny")
    (temporary := tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "edge_tts", "pack", "assemble", str(parts), "--base", str(tiny.base)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "TMPDIR": str(temporary)})
    assert (done.returncode, b"is ready in " in done.stdout) == (0, True), done.stderr
    assert not list(temporary.iterdir())


def test_without_a_verifier(sources: PackFiles, tmp_path: Path) -> None:
    made = build_pack(PackFiles(sources.policy), SETTINGS, tmp_path / "bare")
    assert made.verifier is None
    assert entries(made.folder) == {manifest.MANIFEST, manifest.POLICY}


def test_zip_and_install_give_the_same_pack(built: pack.Pack, tmp_path: Path) -> None:
    write_zip(built, tmp_path / "mine.zip")
    installed = install_pack(tmp_path / "mine.zip")
    assert installed.folder == data_folder() / "mine"
    assert replace(installed, folder=built.folder) == built
    assert pack.find_pack("mine") == installed
    assert "mine" in pack.pack_names()
    with pytest.raises(InputError, match="--replace"):
        install_pack(built.folder)
    assert install_pack(built.folder, replace_existing=True) == installed


@pytest.mark.parametrize("name", [manifest.POLICY, manifest.MANIFEST, manifest.VERIFIER])
def test_a_damaged_zip_installs_nothing(built: pack.Pack, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        for path in built.folder.iterdir():
            content = bytearray(path.read_bytes())
            if path.name == name:
                content[len(content) // 2] ^= 1
            packed.writestr(path.name, bytes(content))
    before = entries(data_folder())
    with pytest.raises(PackError, match=name):
        install_pack(tmp_path / "bad.zip")
    assert entries(data_folder()) == before


@pytest.mark.parametrize("name", ["../escaped.gguf", "mine/../../policy.gguf", "mine/run.py", "/etc/passwd"])
def test_a_zip_with_other_files_is_refused(built: pack.Pack, tmp_path: Path, name: str) -> None:
    write_zip(built, tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip", "a") as packed:
        packed.writestr(name, b"x")
    with pytest.raises(PackError, match="is not a pack: it holds"):
        install_pack(tmp_path / "mine.zip")
    assert not (data_folder() / "mine").exists()


def test_what_is_no_pack_is_refused_in_one_sentence(built: pack.Pack, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    whole = tmp_path / "cut.zip"
    write_zip(built, whole)
    whole.write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "text.zip", whole, tmp_path / "empty", tmp_path / "nowhere.zip"):
        with pytest.raises(EdgeError, match=source.name):
            install_pack(source)


def test_inputs_that_do_not_fit_write_nothing(sources: PackFiles, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = tmp_path / "other.json"
    standin.write_tokenizer(other, words=9)
    (tmp_path / "table.json").write_text('{"probe": 4}')
    for wrong, message in (
        (replace(sources, tokenizer=None), "go together"),
        (replace(sources, tokenizer=other), "tokenizer"),
        (replace(sources, policy=other), "cannot be read as GGUF"),
        (replace(sources, verifier=sources.policy), "cannot read the verifier .*it is no ONNX file"),
        (replace(sources, table=tmp_path / "table.json"), "the strategy table: edges is missing"),
        (replace(sources, policy=tmp_path / "nowhere.gguf"), "is missing"),
    ):
        with pytest.raises(EdgeError, match=message):
            build_pack(wrong, SETTINGS, out)
        assert not out.exists()
    for name in (standin.NAME, "a b", ".hidden"):
        with pytest.raises(InputError, match="name"):
            build_pack(sources, SETTINGS, tmp_path / name)


def test_the_command_line_builds_and_installs(sources: PackFiles, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"prompt": "Q: {question}\nA:", "answer_marker": "= "}))
    arguments = ["--policy", str(sources.policy), "--licence", "MIT", "--out", str(tmp_path / "cli-pack")]

    def run(*more: str) -> str:
        result = CliRunner().invoke(cli.group, ["pack", *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "cli-pack.zip" in run("build", *arguments, "--prompts", str(prompts), "--calculator", "--zip")
    assert "is installed in" in run("install", str(tmp_path / "cli-pack.zip"))
    found = pack.find_pack("cli-pack")
    assert found.prompts.prompt == "Q: {question}\nA:"
    assert found.calculator is not None


def test_what_only_equations_have_does_not_go_with_a_chat_model(built: pack.Pack, tmp_path: Path) -> None:
    for format in ("text", "program"):
        asked = rf"a chat model \(format {format}\) is asked through its own template"
        with pytest.raises(InputError, match=f"{asked}; leave the prompts out, or choose the format equations"):
            PackSettings("MIT", prompts=PromptFormat(), format=format)
        with pytest.raises(InputError, match=f"{asked} and writes its own results; leave the calculator out"):
            PackSettings("MIT", calculator=CalculatorFormat(), format=format)
    path = built.folder / manifest.MANIFEST
    content = json.loads(path.read_text())
    assert "reasoning" not in content  # as versions before this one wrote it
    without = {key: value for key, value in content.items() if key != "prompts"}
    for changed, said in (
        ({**content, "reasoning": "text"}, "prompts and calculator are for packs that write equations.* 'text'"),
        ({**content, "reasoning": "poem"}, "reasoning: Invalid enum value 'poem'"),
        (without, "prompts is missing"),
    ):
        path.write_text(json.dumps({**changed, "checksum": manifest.checksum(changed)}))
        with pytest.raises(PackError, match=said):
            manifest.read(built.folder)


def test_prompts_that_cannot_be_used_are_refused_when_a_pack_is_built_and_read(
    built: pack.Pack, tmp_path: Path
) -> None:
    prompts, path = tmp_path / "prompts.json", built.folder / manifest.MANIFEST
    content = json.loads(path.read_text())
    for written, said in (
        ({"prompt": "no place for it"}, r"must contain \{question\}, found 'no place for it'"),
        ({"prompt": "{0} {question"}, r"must contain \{question\}"),
        ({"attempt": ""}, r"must contain \{attempt\}, found ''"),
        ({"step_delimiter": ""}, "step_delimiter must not be empty"),
        ({"answer_marker": ""}, "answer_marker must be more than space, found ''"),
        ({"answer_marker": " \n"}, "answer_marker must be more than space"),
        ({"step_delimiter": 3}, "step_delimiter must be text, found 3"),
        ({"propmt": "{question}"}, r"unknown key (prompts\.)?propmt"),
    ):
        prompts.write_text(json.dumps(written))
        with pytest.raises(InputError, match=said):
            read_prompts(prompts)
        changed = {**content, "prompts": {**content["prompts"], **written}}
        path.write_text(json.dumps({**changed, "checksum": manifest.checksum(changed)}))
        with pytest.raises(PackError, match=said):
            manifest.read(built.folder)


def test_braces_and_boxes_in_prompts_are_text(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    texts = {"prompt": "In \\boxed{} and {x}: {question}\n", "attempt": "{attempt} { \\boxed{} \n"}
    prompts.write_text(json.dumps(texts))
    rendered = read_prompts(prompts).render("What is {0}? {question}", ["so {attempt} {1}"])
    assert rendered == "In \\boxed{} and {x}: What is {0}? {question}\nso {attempt} {1} { \\boxed{} \n"
