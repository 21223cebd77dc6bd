"""From records to figures: costs of allocations, savings, tables, and honest intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_tts.bench.alone import ALONE
from edge_tts.bench.analysis import analyse
from edge_tts.bench.loading import load_study
from edge_tts.bench.matched import allowance
from edge_tts.bench.optimal import allocate, baseline, bins, cost_of, envelope, resample, saving, share, with_probe
from edge_tts.bench.records import RECORDS, Record, open_study
from edge_tts.bench.strategy_table import fit
from edge_tts.bench.study import RUNS
from edge_tts.commands.bench import command
from edge_tts.core import Usage
from edge_tts.errors import InputError
from edge_tts.files.atomic import silent
from edge_tts.files.json_lines import Appender
from edge_tts.search.allocation import BINS, StrategyTable

PARAMETERS = 1000
PROBLEMS = 1000
BUDGETS = (1, 4, 16)


def usage(samples: float, scored: bool) -> Usage:
    tokens = round(50 + 30 * samples)
    scoring = tokens if scored else 0
    return Usage(
        policy_tokens=tokens,
        policy_flops=2.0 * PARAMETERS * tokens,
        verifier_tokens=scoring,
        verifier_flops=200.0 * scoring,
        seconds=tokens / 100,
    )


def write_study(
    folder: Path, *, easy: float = 0.95, hard: float = 0.35, verifier: bool = True, name: str = "gsm8k_test"
) -> Path:
    """Half of the problems are easy: a vote of one is as good as one of sixteen. The others need samples and scores.

    The verifier's score tells the halves apart.
    """
    rng = np.random.default_rng(0)
    config = {
        "pack": "made up 1",
        "policy_parameters": PARAMETERS,
        "verifier_parameters": 100 if verifier else None,
        "device": {"policy": "cpu", "width": 16},
        "data": {"name": name, "sha256": name, "problems": PROBLEMS},
        "seeds": 1,
        "made_on": {"processor": "abacus", "cores": 1},
    }
    open_study(folder, config)
    rows = []
    for number in range(PROBLEMS):
        simple = number % 2 == 0
        score = (0.8 if simple else 0.2) + 0.1 * rng.random()
        luck = rng.random()
        for strategy in ("greedy", "majority", "adaptive", *(("weighted",) if verifier else ())):
            for budget in BUDGETS if strategy != "greedy" else (1,):
                grown = hard * (1 + 0.5 * (strategy == "weighted")) * np.log2(budget) / 4
                right = luck < (easy if simple else grown)
                drawn = 4 if strategy == "adaptive" and simple and budget > 4 else budget
                detail = {} if strategy == "greedy" else {"right_samples": round(budget * (easy if simple else 0.1))}
                detail |= {"mean_score": score} if detail else {}
                cost = usage(drawn, strategy == "weighted")
                answer = "1" if right else "0"
                rows.append(
                    Record(
                        str(number), strategy, budget, 0, answer, bool(right), "complete", cost, score, (), detail
                    ).to_dict()
                )
    with Appender(folder / RECORDS) as sink:
        sink.add(rows)
    with Appender(folder / RUNS) as sink:
        sink.add([{"units": 1, "seconds": 100.0, "decoding": 90.0, "scoring": 5.0, "joules": 2800.0, "energy": "rapl"}])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "a")


def test_bins_are_about_equal_and_easiest_first() -> None:
    scores = np.linspace(0, 1, 100)
    where = bins(scores)
    assert [int((where == b).sum()) for b in range(BINS)] == [20] * BINS
    assert where[-1] == 0
    assert where[0] == 4


def test_a_share_has_the_bootstrap_interval_of_a_proportion() -> None:
    right = np.array([1.0] * 60 + [0.0] * 140)
    found = share(right, resample(200))
    assert found.value == 0.3
    half = 1.96 * np.sqrt(0.3 * 0.7 / 200)
    assert found.low == pytest.approx(0.3 - half, abs=0.012)
    assert found.high == pytest.approx(0.3 + half, abs=0.012)


def test_cost_of_reads_between_the_points_and_past_losses() -> None:
    cost, level = np.array([1.0, 4.0, 2.0, 8.0]), np.array([0.1, 0.1, 0.3, 0.5])
    assert [list(x) for x in envelope(cost, level)] == [[1, 2, 8], [0.1, 0.3, 0.5]]
    assert cost_of(0.4, cost, level) == pytest.approx(4.0)
    assert cost_of(0.05, cost, level) == 1.0
    assert np.isnan(cost_of(0.6, cost, level))


def test_the_difficulty_estimate_is_charged(folder: Path) -> None:
    study = load_study(folder)
    probe = study.cells["weighted", 4].costs["flops"]
    assert study.probe is not None
    np.testing.assert_array_equal(
        with_probe(study, ("weighted", 16), "flops"), study.cells["weighted", 16].costs["flops"]
    )
    np.testing.assert_array_equal(with_probe(study, ("weighted", 1), "flops"), probe)
    scoring = probe - study.cells["majority", 4].costs["flops"]
    expected = study.cells["majority", 16].costs["flops"] + scoring
    np.testing.assert_allclose(with_probe(study, ("majority", 16), "flops"), expected)
    np.testing.assert_allclose(
        with_probe(study, ("greedy", 1), "flops"), study.cells["greedy", 1].costs["flops"] + probe
    )


def test_allocation_saves_where_difficulty_can_be_told(folder: Path) -> None:
    study = load_study(folder)
    assert study.predicted is not None
    weights = resample(PROBLEMS)
    curve = allocate(study, study.predicted, weights)
    found = saving(curve, baseline(study, "weighted", weights), "flops")
    # Easy problems need the estimate only, hard ones all 16 samples.
    assert found.factor == pytest.approx(1.4, abs=0.15)
    assert 1 <= found.low < found.factor < found.high


def test_allocation_gains_nothing_where_it_cannot(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "flat", easy=0.0, hard=0.0))
    assert study.predicted is not None
    weights = resample(PROBLEMS)
    found = saving(allocate(study, study.predicted, weights), baseline(study, "weighted", weights), "flops")
    assert found.factor < 1  # the estimate was paid for nothing


def test_halves_choose_for_each_other(folder: Path) -> None:
    """Scores that say nothing cannot gain by fitting noise."""
    study = load_study(folder)
    noise = np.random.default_rng(1).random(PROBLEMS)
    weights = resample(PROBLEMS)
    blind, seeing = allocate(study, noise, weights), allocate(study, study.predicted, weights)  # type: ignore[arg-type]
    level = baseline(study, "weighted", weights).accuracy[0, -1]
    blind_cost = cost_of(level, blind.costs["flops"][0], blind.accuracy[0])
    assert np.isnan(blind_cost) or blind_cost > 1.2 * cost_of(level, seeing.costs["flops"][0], seeing.accuracy[0])


def test_the_table_is_one_the_runtime_reads(folder: Path) -> None:
    content = fit(load_study(folder))
    table = StrategyTable.parse(json.loads(json.dumps(content)))
    assert table.fitted
    assert table.budgets == (16,)
    assert str(table.choose(table.bin(0.22), 16)[0]) == "weighted:n=16"
    assert str(table.choose(table.bin(0.22), 4)[0]) == "weighted:n=4"
    assert sum(b["problems"] for b in content["evidence"]["bins"]) == PROBLEMS
    validated = content["evidence"]["cross_validated"][-1]
    assert validated["predicted"]["accuracy"]["value"] >= validated["majority"]["accuracy"]["low"]
    assert len(content["evidence"]["problem_ids"]) == PROBLEMS


def test_the_table_uses_the_samples_it_has_paid_for(tmp_path: Path) -> None:
    """However lucky one sample was where four are drawn anyway."""
    folder = write_study(tmp_path / "s")
    rows = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    lucky = [row | {"correct": True} if (row["strategy"], row["budget"]) == ("weighted", 1) else row for row in rows]
    (folder / RECORDS).write_text("".join(json.dumps(row) + "\n" for row in lucky))
    table = StrategyTable.parse(fit(load_study(folder)))
    chosen = [table.choose(bin, budget)[0] for bin in range(5) for budget in table.budgets]
    assert min(strategy.n for strategy in chosen if strategy.kind != "greedy") >= 4


def test_a_search_that_starts_anew_fits_the_budget_beside_the_estimate(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    rows = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    for budget in (8, 16):
        rows += [
            row | {"strategy": "beam:m=4", "budget": budget, "correct": True}
            for row in rows
            if (row["strategy"], row["budget"]) == ("weighted", 16)
        ]
    (folder / RECORDS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = fit(load_study(folder))
    at_16 = [row[content["budgets"].index(16)] for row in content["cells"]]
    assert at_16 == ["beam:n=8,m=4"] * 5  # 16 and the estimate's 4 are more than 16
    assert content["evidence"]["cross_validated"][-1]["predicted"]["accuracy"]["value"] == 1
    assert str(StrategyTable.parse(content).choose(0, 16)[0]) == "beam:n=8,m=4"


def test_a_study_without_a_verifier_predicts_by_agreement(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "s", verifier=False))
    assert study.predicted is not None
    assert set(np.round(study.predicted, 1)) <= {0.2, 0.3, 0.8, 0.9}
    assert fit(study)["cells"]


def test_fit_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    rows = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    kept = [row for row in rows if row["strategy"] != "weighted"]
    (folder / RECORDS).write_text("".join(json.dumps(row) + "\n" for row in kept))
    with pytest.raises(InputError, match=r"`weighted`.*among the strategies and 4 among the budgets"):
        fit(load_study(folder))


def test_a_study_of_no_more_than_the_estimate_has_no_table(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    rows = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    (folder / RECORDS).write_text("".join(json.dumps(row) + "\n" for row in rows if row["budget"] <= 4))
    with pytest.raises(InputError, match="no budget above 4"):
        fit(load_study(folder))


def test_the_allowance_is_the_papers() -> None:
    # Snell et al. 2024, section 7: M + 3 (D_pre / D_inf)(M - 1)
    assert allowance(14, 0.16) == pytest.approx(14 + 3 / 0.16 * 13)
    assert allowance(14, 22) == pytest.approx(15.77, abs=0.01)


def test_a_report_has_every_figure(folder: Path, tmp_path: Path) -> None:
    with Appender(folder / ALONE) as sink:
        for strategy, seconds, memory in (("greedy", 0.3, 300.0), ("majority", 0.9, 320.0), ("weighted", 1.0, 400.0)):
            budget = 1 if strategy == "greedy" else 16
            sink.add([{"strategy": strategy, "budget": budget, "seconds": [seconds] * 3, "peak_memory_mb": memory}])
    endpoint = tmp_path / "large"
    data = {"name": "gsm8k_test", "sha256": "gsm8k_test", "problems": PROBLEMS}
    open_study(endpoint, {"model": "big", "parameters": 14 * PARAMETERS, "seeds": 1, "data": data})
    with Appender(endpoint / RECORDS) as sink:
        rights = (Record(str(n), "greedy", 1, 0, "1", n % 2 == 0, "complete", Usage()) for n in range(PROBLEMS))
        sink.add([record.to_dict() for record in rights])
    report = analyse([folder, endpoint], silent)
    assert [s.device for s in report.studies] == ["cpu", "endpoint"]
    assert len({p.study for p in report.points}) == 2  # two studies of one data set, told apart
    weighted = next(p for p in report.points if (p.strategy, p.budget) == ("weighted", 16))
    assert weighted.cost.joules == pytest.approx(28 * weighted.cost.seconds, rel=0.01)
    assert {s.difficulty for s in report.savings} == {"oracle", "predicted"}
    assert {s.baseline for s in report.savings} == {"weighted", "majority", "adaptive"}
    losses = {d.strategy: d for d in report.differences if d.budget == 16}
    assert losses["weighted"].low > 0
    assert "majority" not in losses
    measured = [m for m in report.matched if m.larger == "big"]
    assert [m.ratio for m in measured] == [0.16, 0.79, 22.0]
    assert all(m.larger_accuracy == 0.5 and m.times == 14 and m.spent <= m.allowed for m in measured)
    assert {f.strategy: f.on_front for f in report.front} == {"greedy": True, "majority": True, "weighted": True}
    assert any("pass@16" in note for note in report.notes)


def test_unfinished_problems_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    lines = (folder / RECORDS).read_text().splitlines(keepends=True)
    (folder / RECORDS).write_text("".join(lines[:-5]) + lines[-5][:20])
    study = load_study(folder)
    assert len(study.problems) == PROBLEMS - 1
    assert study.left_out == 1


def test_report_command_writes_page_plots_and_tables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_tts.bench.optimal.RESAMPLES", 50)
    result = CliRunner().invoke(command, ["report", str(folder), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == printed
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "out" / "points.csv").read_text().count("\n") == len(printed["points"]) + 1


def test_a_hundred_thousand_records_make_a_page_of_ordinary_size(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_tts.bench.optimal.RESAMPLES", 50)  # the page shows as many figures with any number
    large = tmp_path / "large"
    open_study(large, json.loads((folder / "study.json").read_text()) | {"format": 1})
    rows = (folder / RECORDS).read_text()
    copies = 100_000 // rows.count("\n") + 1
    made = (rows.replace('{"id":"', f'{{"id":"{copy}-') for copy in range(copies))
    (large / RECORDS).write_text("".join(made))
    result = CliRunner().invoke(command, ["report", str(large), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.html").stat().st_size < 3_000_000


def test_fit_command_puts_the_table_into_a_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    result = CliRunner().invoke(command, ["fit", str(folder), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert StrategyTable.parse(json.loads(out.read_text())).fitted
    both = CliRunner().invoke(command, ["fit", str(folder)])
    assert isinstance(both.exception, InputError)
