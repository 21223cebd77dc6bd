"""The pipeline of chat models with a Qwen2 of random weights, which writes nothing that runs: its rows are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_tts.errors import InputError
from edge_tts.export.train import chat_pipeline
from edge_tts.export.train.chat_pipeline import Settings


def settings(base: Path, folder: Path) -> Settings:
    data = folder / "problems.jsonl"
    rows = [{"id": f"t-{i}", "question": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(32)]
    made = [{**row, "solution": f"<<{i}+1={i + 1}>>"} for i, row in enumerate(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in made))
    few = {"problems": 4, "validation": 2, "samples": 2, "width": 4, "max_tokens": 20, "rank": 4}
    return Settings(base, data, folder / "run", minutes=0.02, prm_minutes=0.02, **few)  # type: ignore[arg-type]


def test_an_adapter_comes_out(qwen: Path, tmp_path: Path) -> None:
    asked = settings(qwen, tmp_path)
    (asked.out / "done").mkdir(parents=True)
    (asked.out / "done" / "rows").touch()
    lines = [{"id": f"t-{i}", "question": f"{i} + 1 = ?", "steps": [f"answer = {i} + 1"]} for i in range(1, 9)]
    rows = [{**line, "labels": [1.0], "answer": str(line["id"]), "correct": True} for line in lines]
    (asked.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat_pipeline.run(asked, "adapter")
    assert (asked.out / "adapter.gguf").stat().st_size > 1000
    assert {path.name for path in (asked.out / "done").iterdir()} == {"rows", "self-train", "adapter"}


def test_the_stages_have_the_names_that_until_takes(qwen: Path, tmp_path: Path) -> None:
    asked = settings(qwen, tmp_path)
    assert tuple(stage.name for stage in chat_pipeline.stages(asked)) == chat_pipeline.NAMES
    with pytest.raises(InputError, match="--until sft: there is no such stage; choose one of rows, self-train"):
        chat_pipeline.run(asked, "sft")
    assert not asked.out.exists()
