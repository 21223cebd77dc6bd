"""Records made again from pools are those that the study itself wrote, and a table can be fitted on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_tts.bench.loading import load_study
from edge_tts.bench.pool_records import pool_records
from edge_tts.bench.records import RECORDS, read_config, read_records
from edge_tts.bench.strategy_table import fit
from edge_tts.search.allocation import StrategyTable

STUDY = Path(__file__).parents[2] / "records" / "studies" / "gsm8k-coder-1.5b"


def test_they_are_what_the_study_wrote() -> None:
    wrote = {record.key: record for record in read_records(STUDY / RECORDS)}
    again = list(pool_records(STUDY, read_config(STUDY)))
    assert len(again) == 2 * 5 * 100
    pairs = [(record, wrote[record.key]) for record in again]
    for record, known in pairs:
        # The study also charged steps that it left in the middle.
        assert 0.8 * known.usage.policy_tokens <= record.usage.policy_tokens <= known.usage.policy_tokens, record.key
        assert record.support == pytest.approx(known.support, abs=1e-4)
    tokens, wrote_tokens = (sum(pair[i].usage.policy_tokens for pair in pairs) for i in (0, 1))
    assert tokens == pytest.approx(wrote_tokens, rel=0.05)
    # Ties were broken by the whole log-probability of a trace when the study was made.
    assert sum(record.correct != known.correct for record, known in pairs) < 0.03 * len(pairs)


def test_a_table_of_a_chat_model_without_a_verifier(tmp_path: Path) -> None:
    for name in ("study.json", "samples.jsonl.gz"):
        shutil.copy(STUDY / name, tmp_path / name)
    study = load_study(tmp_path)
    assert study.predicted is not None
    assert study.oracle is not None
    table = fit(study)
    assert StrategyTable.parse(table).budgets == (4, 8, 16)
    evidence = table["evidence"]
    assert [sum(row["problems"] for row in evidence[name]) for name in ("bins", "oracle_bins")] == [100, 100]
    assert evidence["oracle_bins"][0]["right"]["16"]["majority"] > evidence["oracle_bins"][4]["right"]["16"]["majority"]
    for row in evidence["cross_validated"]:
        assert 0 < row["predicted"]["accuracy"]["value"] < 1
        assert row["oracle"]["flops"] > 0
