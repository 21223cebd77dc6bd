"""Settings and saved searches damaged at random are used as far as they can be, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation import all_used_or_refused, damaged_json, damaged_toml
from showing import console, search

from edge_tts.commands.config import config_file, read_config
from edge_tts.commands.search_tree import print_search
from edge_tts.questions.saved_search import read, save
from edge_tts.search.saved_page import page


def test_damaged_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    path = config_file()
    path.write_text('model = "a"\nmemory = 900\ndeadline = 12.5\nformat = "text"\nstrategy = "beam:n=4,m=2"\n')
    all_used_or_refused(path, damaged_toml, lambda _: read_config())


def test_a_damaged_saved_search(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    save(search(), path)

    def use(path: Path) -> None:
        found = read(path)
        print_search(console(), found)
        page(found)

    all_used_or_refused(path, damaged_json, use)
