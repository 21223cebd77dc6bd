"""The models that the desktop app offers, and what a typed one means."""

from __future__ import annotations

from pathlib import Path

import hub_server
import pytest
from desktop_app import application
from edge_desktop.model_view import ModelBox
from edge_desktop.models import AUTOMATIC, BUILT_IN, choose, reference_of
from PySide6.QtWidgets import QApplication, QFileDialog
from tiny_model import write_tiny_model

from edge_tts import InputError
from edge_tts.packs.catalogue import entries
from edge_tts.packs.offers import offers


@pytest.fixture(autouse=True, scope="module")
def qt() -> QApplication:
    """Widgets need it; kept here, since it goes with its last reference."""
    return application()


def test_models_on_this_machine_come_first(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    smallest = min(entries().values(), key=lambda entry: entry.quality)
    monkeypatch.setattr("edge_tts.packs.model_files.find", lambda model: tmp_path if model == smallest else None)
    listed = offers()
    assert [offer.name for offer in listed[:2]] == [smallest.name, BUILT_IN]
    assert {offer.name for offer in listed} == {BUILT_IN, *entries()}
    assert not any(offer.is_here for offer in listed[2:])
    box = ModelBox("")
    box.offer(listed)
    names = [box.itemText(index) for index in range(box.count()) if box.itemText(index)]
    assert names[1:4] == [smallest.name, "smol-math (built in, tiny)", "To download"]
    assert names[-2:] == ["Choose a GGUF file …", "Enter a name or a hub id …"]
    assert any(name.endswith(" GB") for name in names)


def test_a_choice_means_a_model_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    missing = choose("qwen2.5-coder-0.5b", 2000)
    assert (missing.is_here, missing.size, missing.reason) == (False, 491_400_064, "")
    file = write_tiny_model(tmp_path / "own.gguf")
    own = choose(str(file), 2000)
    assert (own.pack.gguf, own.is_here) == (file, True)
    with pytest.raises(InputError, match="check the path"):
        choose(str(tmp_path / "other.gguf"), 2000)
    assert choose(BUILT_IN, 2000).pack.name == "smol-math"
    monkeypatch.delenv("EDGE_REASON_MODEL")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    best = choose(AUTOMATIC, 2000)
    assert not best.is_here
    assert "a download of" in best.reason


def test_a_file_of_the_users_is_chosen_by_a_dialog(monkeypatch: pytest.MonkeyPatch) -> None:
    box, told = ModelBox(""), []
    box.chosen.connect(told.append)
    answers = [("", ""), ("/models/own.gguf", "")]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: answers.pop(0))
    for _ in range(2):
        line = box.findText("Choose a GGUF file …")
        box.setCurrentIndex(line)
        box.activated.emit(line)
    assert told == ["/models/own.gguf"]
    assert (box.currentText(), box.reference) == ("own.gguf", "/models/own.gguf")


@pytest.mark.parametrize(
    ("typed", "reference"),
    [
        ("a/b:Q4_K_M", "a/b:Q4_K_M"),
        (" a/b ", "a/b"),
        ("Qwen2.5-Coder-0.5B", "qwen2.5-coder-0.5b"),
        ("smol-math", "smol-math"),
    ],
)
def test_what_is_typed_as_a_model_is_what_the_command_line_takes(typed: str, reference: str, home: Path) -> None:
    assert reference_of(typed) == reference


def test_a_typed_path_is_kept_whole_and_a_typing_mistake_is_told(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny_model(tmp_path / "own.gguf")
    monkeypatch.chdir(tmp_path)
    assert reference_of("own.gguf") == str(file)
    with pytest.raises(InputError, match=r"did you mean qwen2\.5-coder-0\.5b"):
        reference_of("qwen2.5-coder-0.5")


def test_the_hub_is_asked_only_for_the_size_of_what_is_not_here(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server.serve() as hub:
        hub.patch(monkeypatch, tmp_path)
        hub.add("a/sizes", {"own.Q4_K_M.gguf": b"GGUF" + bytes(96), "own.Q8_0.gguf": b"GGUF" + bytes(196)})
        monkeypatch.setenv("EDGE_REASON_MODEL", "a/sizes:Q8_0")  # the default may be one too
        for reference, size in (("a/sizes", 100), (AUTOMATIC, 200)):
            found = choose(reference, 2000)
            assert (found.pack, found.is_here, found.size) == (None, False, size)
        with pytest.raises(InputError, match="the hub has no repository a/nothing"):
            choose("a/nothing", 2000)
        hub.status = 500
        assert choose("a/unknown", 2000).size == 0
        assert not hub.ranges
