"""The comparison with transformers, run for real on one problem, and its statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_tts.bench import peers
from edge_tts.bench.records import Record, read_records
from edge_tts.core import Usage
from edge_tts.packs.pack import Pack
from edge_tts.questions.reading import read_questions
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy

SAMPLE = Path(__file__).parents[1] / "data" / "svamp_sample.jsonl"
BUDGET = 2


@pytest.fixture(scope="module")
def run(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A finished comparison: the command and its record."""
    out = tmp_path_factory.mktemp("peers") / "record.json"
    arguments = ["--data", str(SAMPLE), "--first", "1", "--budget", str(BUDGET), "--out", str(out)]
    done = CliRunner().invoke(peers.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return arguments, out


def test_both_sides_do_the_same_work_the_peer_more_of_it(run: tuple[list[str], Path], pack: Pack) -> None:
    record = json.loads(run[1].read_text(encoding="utf-8"))
    assert record["problems"] == ["chal-812"]
    for method in peers.METHODS:
        found = record["methods"][method]
        ours, theirs = found["ours"], found["transformers"]
        for side in (ours, theirs):
            assert side["problems"] == 1
            assert all(side[figure] > 0 for figure in peers.FIGURES)
        assert theirs["policy_tokens"] > ours["policy_tokens"]
        assert theirs["verifier_tokens"] >= ours["verifier_tokens"]
        quotient = theirs["policy_tokens"] / ours["policy_tokens"]
        assert found["ratios"]["policy_tokens"] == {
            "ratio": pytest.approx(quotient, abs=1e-3),
            "interval95": pytest.approx([quotient, quotient], abs=1e-3),
            "median": pytest.approx(quotient, abs=1e-3),
        }
    # The peer evaluates the prompt once a copy; llama.cpp counts the same tokens in it.
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=1))
    prompt = len(policy.tokenize(pack.prompts.render(read_questions(SAMPLE)[0].question), special=True))
    policy.close()
    for method in peers.METHODS:
        assert prompt < record["methods"][method]["ours"]["policy_tokens"]
    sampled, searched = (record["methods"][method]["transformers"] for method in peers.METHODS)
    assert sampled["policy_tokens"] - sampled["generated_tokens"] == BUDGET * prompt
    assert searched["policy_tokens"] - searched["generated_tokens"] > 2 * BUDGET * prompt


def test_a_finished_comparison_is_not_run_again(run: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, out = run
    before = (out.with_suffix(".d") / "rows.jsonl").read_bytes()
    out.unlink()
    monkeypatch.setattr(peers, "compare", None)
    done = CliRunner().invoke(peers.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (out.with_suffix(".d") / "rows.jsonl").read_bytes() == before
    assert json.loads(out.read_text(encoding="utf-8"))["methods"].keys() == set(peers.METHODS)
    refused = CliRunner().invoke(peers.main, [*arguments, "--seed", "1"])
    assert refused.exit_code == 1
    assert "seed was 0 and is now 1" in refused.output


def test_what_is_known_is_not_solved_again(run: tuple[list[str], Path]) -> None:
    rows = read_records(run[1].with_suffix(".d") / "rows.jsonl")
    strategies = [f"{side}/{method}" for method in peers.METHODS for side in peers.SIDES]
    assert [row.strategy for row in rows] == strategies
    assert all(row.usage.seconds > 0 and row.usage.peak_memory_mb > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", "nothing.jsonl"], "neither a file nor the name of a data set"),
        (["--data", str(SAMPLE), "--pack", "nothing"], "no pack 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, options: list[str], complaint: str) -> None:
    done = CliRunner().invoke(peers.main, [*options, "--out", str(tmp_path / "x.json")])
    assert done.exit_code == 1
    assert complaint in done.output
    assert "Traceback" not in done.output


def test_the_interval_of_a_ratio_covers_what_problems_differ_by() -> None:
    same = peers.ratio([4.0, 8.0, 12.0], [2.0, 4.0, 6.0])
    assert same == {"ratio": 2.0, "interval95": [2.0, 2.0], "median": 2.0}
    mixed = peers.ratio([1.0, 9.0] * 8, [1.0, 1.0] * 8)
    assert mixed["ratio"] == 5.0
    low, high = mixed["interval95"]
    assert 2.5 < low < 4 < 6 < high < 7.5
    assert mixed["median"] == 5.0


def record(id_: str, strategy: str, seconds: float, **rest: Any) -> Record:
    usage = Usage(policy_tokens=100, generated_tokens=50, verifier_tokens=10, seconds=seconds)
    return Record(id_, strategy, 4, 0, "1", True, "complete", usage, **rest)


def test_only_problems_that_both_sides_solved_count() -> None:
    rows = [
        record("a", "ours/beam", 1.0),
        record("b", "ours/beam", 2.0),
        record("b", "transformers/beam", 6.0),
        record("a", "ours/best-of-n", 1.0),
    ]
    found = peers.summarise(rows)
    assert list(found) == ["beam"]
    assert found["beam"]["ours"]["seconds"] == 2.0
    assert found["beam"]["ratios"]["seconds"]["ratio"] == 3.0
