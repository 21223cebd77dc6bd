"""Committed records of chat models are those that their pools give, and a table can be fitted on them."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_tts.bench.loading import load_study
from edge_tts.bench.optimal import resample, share
from edge_tts.bench.pool_records import command
from edge_tts.bench.records import CONFIG, RECORDS, REPLAYED, SAMPLES, Record, compressed, read_config, read_records
from edge_tts.bench.strategy_table import fit
from edge_tts.search.allocation import StrategyTable

STUDIES = Path(__file__).parents[2] / "records" / "studies"
STUDY = STUDIES / "gsm8k-coder-1.5b"
SAMPLE = Path(__file__).parents[1] / "data" / "gsm8k_sample.jsonl"
IDS = [json.loads(line)["id"] for line in SAMPLE.read_text("utf-8").splitlines()]


def part_of(study: Path, folder: Path) -> Path:
    """The study's problems that ``SAMPLE`` has, without records."""
    folder.mkdir()
    shutil.copy(study / CONFIG, folder)
    with gzip.open(compressed(study / SAMPLES), "rt", encoding="utf-8") as pools:
        own = [line for line in pools if json.loads(line)["id"] in IDS]
    (folder / SAMPLES).write_text("".join(own), encoding="utf-8")
    return folder


def again(folder: Path) -> list[Record]:
    done = CliRunner().invoke(command, [str(folder), "--data", str(SAMPLE)], catch_exceptions=False)
    assert done.exit_code == 0
    return read_records(folder / RECORDS)


@pytest.mark.parametrize("name", ["gsm8k-coder-1.5b", "gsm8k-coder-0.5b"])
def test_committed_records_are_what_the_samples_give(name: str, tmp_path: Path) -> None:
    folder = part_of(STUDIES / name, tmp_path / name)
    found = again(folder)
    assert found == [record for record in read_records(STUDIES / name / RECORDS) if record.id in IDS]
    assert read_config(folder) == read_config(STUDIES / name)
    assert read_config(folder)[REPLAYED] is True
    assert {record.id for record in found} == set(IDS)


def test_records_cost_what_their_samples_do(tmp_path: Path) -> None:
    by_problem: dict[str, dict[tuple[str, int], Record]] = defaultdict(dict)
    for record in again(part_of(STUDY, tmp_path / "study")):
        by_problem[record.id][record.strategy, record.budget] = record
    parameters = read_config(STUDY)["policy_parameters"]
    for cells in by_problem.values():
        for budget in (1, 2, 4, 8, 16):
            vote = cells["majority", budget]
            assert vote.usage.generations == budget
            for scored in ("weighted", "best-of-n"):  # what scores programs costs no tokens
                assert cells[scored, budget].usage.policy_tokens == vote.usage.policy_tokens
            for careful in ("auto", "adaptive"):
                assert cells[careful, budget].usage.generations <= budget
                assert cells[careful, budget].usage.generated_tokens <= vote.usage.generated_tokens
        assert all(cell.usage.policy_flops == 2 * parameters * cell.usage.policy_tokens for cell in cells.values())
    assert any(cells["auto", 16].usage.generations < 16 for cells in by_problem.values())
    assert any(cells["auto", 16].scores for cells in by_problem.values())


def test_a_problem_that_the_data_lacks_is_named(tmp_path: Path) -> None:
    folder = part_of(STUDY, tmp_path / "study")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(SAMPLE.read_text("utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    done = CliRunner().invoke(command, [str(folder), "--data", str(data)])
    assert f"--data lacks problem {IDS[0]}" in str(done.exception)
    assert not compressed(folder / RECORDS).exists()


def test_the_documented_figures_are_those_of_the_records() -> None:
    """Of the strategies that docs/benchmarks.md names with their sizes: right answers, interval and tokens."""
    text = (STUDIES.parents[1] / "docs" / "benchmarks.md").read_text("utf-8")
    lines = re.findall(r"^\| `([\w-]+)` of (\d+) \|(.*)\|$", text, re.MULTILINE)
    rows = [(name, int(budget), [cell.strip() for cell in cells.split("|")]) for name, budget, cells in lines]
    assert len(rows) == 9
    for column, name in enumerate(("gsm8k-coder-1.5b", "gsm8k-coder-0.5b")):
        study = load_study(STUDIES / name)
        weights = resample(len(study.problems))
        for strategy, budget, cells in rows:
            solves = study.cells.get((strategy, budget))
            told = ["", ""]
            if solves:
                right = share(solves.correct, weights)
                interval = f"{100 * right.low:.0f} to {100 * right.high:.0f}"
                told = [f"{100 * right.value:.0f} ({interval})", f"{solves.costs['policy_tokens'].mean():.0f}"]
            assert cells[2 * column : 2 * column + 2] == told, (name, strategy, budget)


def test_a_table_of_a_chat_model() -> None:
    study = load_study(STUDY)
    assert study.predicted is not None
    assert study.oracle is not None
    table = fit(study)
    assert StrategyTable.parse(table).budgets == (8, 16)
    evidence = table["evidence"]
    assert [sum(row["problems"] for row in evidence[name]) for name in ("bins", "oracle_bins")] == [100, 100]
    assert evidence["oracle_bins"][0]["right"]["16"]["majority"] > evidence["oracle_bins"][4]["right"]["16"]["majority"]
    for row in evidence["cross_validated"]:
        assert 0 < row["predicted"]["accuracy"]["value"] < 1
        assert row["oracle"]["flops"] > 0
