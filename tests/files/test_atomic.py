"""Texts and folders that are replaced as a whole, and what killed processes leave of that."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
from pathlib import Path

import pytest

from edge_tts.errors import InputError
from edge_tts.files.atomic import building, exclusive, publish, write_text


def test_a_text_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "é.txt"
    for text in ("one\n", "two ½ \ud83d\n", ""):
        write_text(path, text)
        assert path.read_bytes() == text.encode(errors="replace")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links")
def test_a_link_is_followed_and_the_mode_kept(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "folder" / "link"
    link.parent.mkdir()
    link.symlink_to(kept)
    write_text(kept, "one")
    kept.chmod(0o640)
    write_text(link, "two")
    assert (kept.read_text(), link.is_symlink(), stat.S_IMODE(kept.stat().st_mode)) == ("two", True, 0o640)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "a text")
    reader.join(10)
    assert read == ["a text"]
    assert pipe.is_fifo()
    write_text(Path(os.devnull), "a text")
    assert not Path(os.devnull).is_file()


def test_a_folder_or_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "text"):
        with pytest.raises(InputError, match=r"cannot be written .*; change its permissions, or choose a folder"):
            write_text(path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, recent = tmp_path / ".building-old", tmp_path / ".building-recent"
    for folder in (old, recent):
        folder.mkdir()
        (folder / "half").write_text("half")
    for path in (old / "half", old, recent):  # something in the recent one has changed
        os.utime(path, (1, 1))
    write_text(tmp_path / "text", "text")
    assert {path.name for path in tmp_path.iterdir()} == {".building-recent", "text"}
    with exclusive(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "text"}


def write_folder(folder: Path, content: str) -> None:
    with building(folder.parent) as temporary:
        (temporary / "new").mkdir()
        (temporary / "new" / "file").write_text(content)
        publish(temporary / "new", folder)


def test_a_folder_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pack"
    for content in ("one", "two"):
        write_folder(folder, content)
        assert (folder / "file").read_text() == content
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="Permission denied"):
        write_folder(folder, "three")
    assert (folder / "file").read_text() == "two"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("killed", ["before its successor came", "after it"])
def test_a_folder_that_was_moved_aside(tmp_path: Path, killed: str) -> None:
    folder, aside = tmp_path / "pack", tmp_path / ".replaced-pack"
    write_folder(aside, "one")
    if killed == "after it":
        write_folder(folder, "two")
    with exclusive(tmp_path):
        assert (folder / "file").read_text() == ("two" if killed == "after it" else "one")
        assert not aside.exists()


def test_half_of_a_folder_that_was_moved_aside_is_never_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill comes while the old folder is deleted, and then the new one is deleted by hand."""
    target = tmp_path / "pack"

    def killed(path: Path, **_: object) -> None:
        for file in path.rglob("a"):
            file.unlink()

    with building(tmp_path) as temporary:
        for version in ("old", "new"):
            built = temporary / "pack"
            built.mkdir()
            for name in ("a", "b"):
                (built / name).write_text(version, "utf-8")
            with monkeypatch.context() as during:
                during.setattr(shutil, "rmtree", killed)
                publish(built, target)
    assert [path.read_text("utf-8") for path in sorted(target.iterdir())] == ["new", "new"]
    shutil.rmtree(target)
    with exclusive(tmp_path):
        assert not target.exists()
