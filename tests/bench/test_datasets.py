"""Data sets: files with good and bad lines, and test sets of the hub in the columns they have there."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_tts.bench import datasets
from edge_tts.errors import InputError
from edge_tts.questions.reading import Question

SAMPLE = Path(__file__).parents[1] / "data" / "svamp_sample.jsonl"
GOOD = {"id": "a", "question": "What is 3 times 14?", "answer": 42}


def write(path: Path, lines: Sequence[object]) -> str:
    """Objects as JSON lines, bytes and texts as they are."""
    parts = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(parts) + b"\n")
    return str(path)


def test_a_file_is_read_in_order_with_the_digest_of_its_content(tmp_path: Path) -> None:
    found = datasets.load(str(SAMPLE))
    assert found.name == "svamp_sample"
    assert [p.id for p in found.problems[:3]] == ["chal-812", "chal-767", "chal-249"]
    assert found.problems[0].answer == "14"
    assert found.left_out == ()
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert datasets.load(write(tmp_path / "copy.jsonl", rows)).sha256 == found.sha256
    rows[0]["answer"] = "15"
    assert datasets.load(write(tmp_path / "other.jsonl", rows)).sha256 != found.sha256


def test_ids_are_optional(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"question": "What is 1+1?", "answer": "2"}, "", GOOD])
    assert datasets.load(path).problems == (Question("1", "What is 1+1?", "2"), Question("a", GOOD["question"], "42"))


BAD = [
    ('{"question": "cut', "not JSON"),
    ({"answer": 1}, 'must be a JSON object with a "question"'),
    ([1, 2], 'must be a JSON object with a "question"'),
    ({"question": "What is 1+1?"}, 'there is no "answer"'),
    ({"question": "What is 1+1?", "answer": "  "}, 'there is no "answer"'),
    ({"question": " ", "answer": 1}, "the question is empty"),
    ({**GOOD, "question": "Again?"}, "id 'a' is also the id of line 1"),
    (b'{"question": "\xff?", "answer": 1}', "not UTF-8"),
]


def test_every_bad_line_is_said_and_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [GOOD, *(line for line, _ in BAD), {**GOOD, "id": "b"}])
    with pytest.raises(InputError) as error:
        datasets.load(path)
    for number, (_, complaint) in enumerate(BAD[:3], 2):
        assert f"line {number}: " in str(error.value)
        assert complaint in str(error.value)
    assert "has 8 lines that cannot be used" in str(error.value)
    assert "and 5 more" in str(error.value)
    assert "--skip-bad" in str(error.value)
    found = datasets.load(str(Path(path).parent) + "/./x.jsonl", skip_bad=True)
    assert [p.id for p in found.problems] == ["a", "b"]
    assert len(found.left_out) == len(BAD)
    for number, (sentence, (_, complaint)) in enumerate(zip(found.left_out, BAD, strict=True), 2):
        assert sentence.startswith(f"line {number}: ")
        assert complaint in sentence
        assert str(tmp_path) not in sentence


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_without_a_usable_line_is_refused(tmp_path: Path, skip_bad: bool) -> None:
    with pytest.raises(InputError, match="holds no problems"):
        datasets.load(write(tmp_path / "empty.jsonl", ["", " "]), skip_bad)
    with pytest.raises(InputError, match=r"has 1 line that cannot be used: line 1: .*none is left"):
        datasets.load(write(tmp_path / "bad.jsonl", ["{"]), skip_bad)


def test_an_unknown_source_is_answered_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gsm8k, svamp, math-500"):
        datasets.load("gsm9k")
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        datasets.load(str(tmp_path))


# --- test sets of the hub, written by the library itself and laid out as they are there ---------------------------

GSM8K = [
    {"question": "How many?", "answer": "There are 1000+234=<<1000+234=1234>>1234.\n#### 1,234"},
    {"question": "How few?", "answer": "#### -7"},
]
SVAMP = [
    {"ID": "chal-777", "Body": "There are 290 bananas in 2 groups", "Question": "How big is each?", "Answer": "145.0"},
    {"ID": "chal-1", "Body": "Jo has 3 hats.", "Question": "How many has she?", "Answer": "3"},
]
SVAMP = [{**row, "Equation": "( 290.0 / 2.0 )", "Type": "Common-Division"} for row in SVAMP]
MATH = [
    {
        "problem": "Convert $(0,3)$ to polar coordinates.",
        "solution": "We have ...",
        "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": "test/precalculus/807.json",
    }
]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local folders in place of the hub's repositories, each with a test split, a train split and a card."""
    from datasets import Dataset

    def put(name: str, config: str, folder: str, rows: list[dict[str, Any]]) -> None:
        root = tmp_path / name
        (root / folder).mkdir(parents=True)
        for split in ("train", "test"):
            shown = rows if split == "test" else [{**row, "answer": "#### 0"} for row in rows[:1]]
            columns = rows[0].keys()
            content = Dataset.from_list([{key: row[key] for key in columns} for row in shown])
            content.to_parquet(root / folder / f"{split}-00000-of-00001.parquet")
        files = "".join(f"  - split: {s}\n    path: {folder}/{s}-*\n" for s in ("train", "test"))
        card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        (root / "README.md").write_text(card, encoding="utf-8")
        monkeypatch.setitem(datasets.HUB, name, replace(datasets.HUB[name], path=str(root)))

    put("gsm8k", "main", "main", GSM8K)
    put("svamp", "default", "data", SVAMP)
    (tmp_path / "math-500").mkdir()
    Dataset.from_list(MATH).to_json(tmp_path / "math-500" / "test.jsonl")
    monkeypatch.setitem(datasets.HUB, "math-500", replace(datasets.HUB["math-500"], path=str(tmp_path / "math-500")))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_gsm8k(mirror: Path) -> None:
    found = datasets.load("gsm8k")
    assert found.name == "gsm8k"
    assert found.problems == (
        Question("gsm8k-test-0", "How many?", "1234"),
        Question("gsm8k-test-1", "How few?", "-7"),
    )


def test_svamp(mirror: Path) -> None:
    assert datasets.load("svamp").problems == (
        Question("chal-777", "There are 290 bananas in 2 groups. How big is each?", "145"),
        Question("chal-1", "Jo has 3 hats. How many has she?", "3"),
    )


def test_math_500(mirror: Path) -> None:
    found = datasets.load("math-500").problems
    assert found == (Question("test/precalculus/807.json", MATH[0]["problem"], MATH[0]["answer"]),)


def test_bad_rows_of_the_hub_are_bad_lines(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = replace(datasets.HUB["gsm8k"], read=lambda row, _: Question("same", row["question"], "1"))
    monkeypatch.setitem(datasets.HUB, "gsm8k", twice)
    with pytest.raises(
        InputError, match="gsm8k has 1 row that cannot be used: row 2: id 'same' is also the id of row 1"
    ):
        datasets.load("gsm8k")
    assert datasets.load("gsm8k", skip_bad=True).left_out == ("row 2: id 'same' is also the id of row 1",)
    monkeypatch.setitem(datasets.HUB, "gsm8k", replace(twice, columns=("question", "result")))
    with pytest.raises(InputError, match="has no column 'result' \\(it has question, answer\\)"):
        datasets.load("gsm8k")


def test_without_the_library_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"pip install 'edge-reasoning-runtime\[bench\]'"):
        datasets.load("gsm8k")


def test_an_unreachable_hub_is_an_input_error(tmp_path: Path) -> None:
    code = (
        "from edge_tts.bench.datasets import load\nfrom edge_tts.errors import InputError\n"
        "try:\n    load('gsm8k')\nexcept InputError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "gsm8k cannot be downloaded from the hub as openai/gsm8k" in done.stdout
    assert "give it as JSON lines" in done.stdout
