"""Saved searches: read back, shown as a tree and as a page, and refused where they are damaged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from showing import console, finished, result, said, search

from edge_tts import cli
from edge_tts.commands.search_tree import print_search
from edge_tts.core import Budget
from edge_tts.errors import InputError
from edge_tts.events import CandidateScored, Escalated
from edge_tts.questions.recording import Attempt, Moment, Recording
from edge_tts.questions.results import Settings
from edge_tts.questions.saved_search import SavedSearch, Turn, read, save
from edge_tts.search.saved_page import alike, page

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7*7 }} \x1b[2J'


def hostile() -> SavedSearch:
    """A search all whose texts want to be something else."""
    recording = Recording()
    recording.take(finished(0, HOSTILE, answer=HOSTILE))
    recording.take(finished(1, "x", error=HOSTILE))
    settings = Settings("auto", Budget(), 0, HOSTILE, True)
    found = result(answer=HOSTILE, votes=((HOSTILE, 1.0),), reason=HOSTILE, stop_reason=HOSTILE)
    return SavedSearch.of(HOSTILE, settings, recording, found, (Turn("user", HOSTILE),))


def why(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, ["why", *arguments])


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    larger = Escalated("large", "this machine", 10, 20, 3.21)
    for saved in (search(escalation=larger), search(answer=None, confidence=0.0), hostile()):
        save(saved, tmp_path / "s.json")
        assert read(tmp_path / "s.json") == saved
    content = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert content["format"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_the_tree_groups_candidates_by_answer() -> None:
    out = console()
    print_search(out, search())
    lines = said(out).splitlines()
    assert lines[:4] == [
        "How many pencils are left?",
        "├── 76  2 samples, 80% of the vote",
        "│   ├── #1",
        "│   │   x = 12 * 8  # 96",
    ]
    assert "├── 54  1 sample, 20% of the vote" in lines
    assert "├── failed  1 sample" in lines
    assert "│       NameError: name 'z' is not defined" in lines
    assert "└── unfinished  1 sample" in lines
    assert lines[-5:] == [
        "answer: 76 (about 92% sure)",
        "stopped because the vote was settled",
        "19.9 s, 5 samples, 488 tokens",
        "a-model, as a program",
        "adaptive:n=16 (asked for), seed 0",
    ]


def test_candidates_with_the_same_steps_are_shown_once() -> None:
    recording = Recording()
    for lane in range(5):
        recording.take(finished(lane, "1+1=2", answer="2"))
        recording.take(CandidateScored(lane, 0.5))
    recording.take(finished(5, "2", answer="2"))
    shown = alike(recording.attempts)
    assert [label for label, _ in shown] == ["#1, #2, #3 and 2 more like it", "#6"]


def test_no_text_reaches_the_terminal_as_a_control() -> None:
    out = console()
    print_search(out, hostile())
    assert "\x1b" not in said(out)
    assert "<script>" in said(out)


class _Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.handlers: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on") or name in ("src", "href")}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_without_scripts_and_escapes_all_text() -> None:
    found = _Elements(page(hostile()))
    assert found.elements & {"script", "img", "link", "iframe", "form"} == set()
    assert found.handlers == set()
    assert found.text.count("<script>") > 5
    assert "{{ 7*7 }}" in found.text


def test_the_page_says_what_the_tree_says() -> None:
    text = " ".join(_Elements(page(search())).text.split())
    for part in ("How many pencils are left?", "76 (about 92% sure)", "2 samples, 80% of the vote", "NameError"):
        assert part in text
    assert "stopped because the vote was settled" in text
    assert "no answer" in page(search(answer=None, confidence=0.0))


def test_tree_and_page_have_the_explanation_and_the_larger_model() -> None:
    larger = Escalated("large", "this machine", 10, 20, 3.21, answer_before="75", confidence_before=0.3)
    found = search(explanation="Because.", escalation=larger)
    out = console(width=120)
    print_search(out, found)
    for shown in (said(out), _Elements(page(found)).text):
        assert "Because." in shown
        assert "large (this machine) was asked too: 3.2 s, 30 tokens; before: 75 (a guess, 30%)" in shown
        assert "its answer was taken" in shown


def test_the_command_shows_a_tree_or_writes_a_page(tmp_path: Path) -> None:
    save(search(), tmp_path / "s.json")
    assert "answer: 76 (about 92% sure)" in why(str(tmp_path / "s.json")).stdout
    done = why(str(tmp_path / "s.json"), "--html", str(tmp_path / "s.html"))
    assert done.exit_code == 0
    assert done.stdout == ""
    assert (tmp_path / "s.html").read_text(encoding="utf-8") == page(read(tmp_path / "s.json"))


def test_a_terminal_that_knows_few_characters_shows_what_it_can(tmp_path: Path) -> None:
    save(search("Was kostet ein Brötchen in €?"), tmp_path / "s.json")
    command = [sys.executable, "-m", "edge_tts", "why", str(tmp_path / "s.json")]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[:2] == ["Was kostet ein Br?tchen in ??", "+-- 76  2 samples, 80% of the vote"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"format": 1', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"format": 1, "candidates": [NaN]}', "is not JSON"),
        (b'{"format": 1, "candidates": [1e999]}', "is not JSON"),
        (b"[]", "is no saved search"),
        (b'{"answer": "76"}', "is no saved search"),
        (b'{"format": 2, "candidates": []}', "has the format 2"),
        (b'{"format": 1, "candidates": []}', "is missing"),
    ],
)
def test_what_is_no_saved_search_is_one_sentence(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="check the path"):
        read(tmp_path / "none.json")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, part in items for leaf in leaves(part, (*path, key)))]


def test_damage_anywhere_is_one_sentence_or_does_no_harm(tmp_path: Path) -> None:
    """Every value of a file in turn is replaced by ones of other types and sizes."""
    path = tmp_path / "s.json"
    save(search(), path)
    whole = path.read_text(encoding="utf-8")
    complaints: list[str] = []
    chance = random.Random(0)
    for at in leaves(json.loads(whole))[1:]:
        for wrong in chance.sample([None, -1, 10**17, 1e308, "", "x", [], {}, [[]], True], 4):
            content = json.loads(whole)
            *front, last = at
            part = content
            for key in front:
                part = part[key]
            part[last] = wrong
            path.write_text(json.dumps(content), encoding="utf-8")
            try:
                found = read(path)
            except InputError as error:
                complaints.append(str(error))
                continue
            print_search(console(), found)
            page(found)
    assert len(complaints) > 100
    assert all(complaint and "\n" not in complaint for complaint in complaints)


def test_the_documentation_names_the_keys_of_the_file() -> None:
    text = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text(encoding="utf-8")
    table = text.partition("The file is JSON:")[2].partition("## Chat")[0]
    keys = {field.name for kind in (SavedSearch, Attempt, Moment) for field in fields(kind)}
    assert keys - {"number"} == {key for key in keys if f"`{key}`" in table}
