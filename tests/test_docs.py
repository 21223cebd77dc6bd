"""Runs the examples of the documentation on the built-in pack."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from edge_tts.packs.pack import Pack

DOCS = Path(__file__).parents[1] / "docs"


def test_the_examples_of_the_library(pack: Pack, coder_05b: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = Sybil([PythonCodeBlockParser()], path=str(DOCS), patterns=["library.md"]).parse(DOCS / "library.md")
    count = 0
    for example in document.examples():
        example.evaluate()
        count += 1
        if count == 1:
            assert document.namespace["result"].usage.policy_tokens > 0
        if "solver.cancel" in str(example.parsed):
            assert document.namespace["result"].stop_reason == "cancelled"
    assert count == document.text.count("```python")
    said = capsys.readouterr().out
    assert "answer: " in said
    assert "60 MB" in said
    assert "Paris" in said
