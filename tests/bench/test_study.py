"""Studies: pools that serve many strategies, records that survive a crash, resume."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_tts.bench.pool import Pool, draw, problem_seed
from edge_tts.bench.records import CONFIG, RECORDS, SAMPLES, Record, open_study, read_records
from edge_tts.bench.replay import Replay
from edge_tts.bench.study import RUNS, Grid, Study, is_sampling
from edge_tts.commands.bench import command
from edge_tts.core import Budget, Usage
from edge_tts.errors import InputError
from edge_tts.files.json_lines import Appender, read_lines
from edge_tts.packs.pack import Pack
from edge_tts.questions.reading import Question, read_questions
from edge_tts.search.strategy import Strategy
from edge_tts.solver import Solver

SAMPLE = Path(__file__).parents[1] / "data" / "svamp_sample.jsonl"


def new_solver(pack: Pack, together: int = 16) -> Solver:
    solver = Solver(pack, "laptop-cpu", generations=together, prompt_tokens=120)
    solver.deadline_s = None
    return solver


@pytest.fixture(scope="module")
def solver(pack: Pack) -> Iterator[Solver]:
    with new_solver(pack) as solver:
        yield solver


@pytest.fixture(scope="module")
def problems() -> list[Question]:
    return read_questions(SAMPLE)[:4]


@pytest.fixture(scope="module")
def pools(solver: Solver, problems: list[Question]) -> list[Pool]:
    drawn = [draw(solver, problem, 8, 3, True, lambda: False) for problem in problems]
    return [pool for pool in drawn if pool]


def record(id: str = "1", strategy: str = "majority", budget: int = 4, seed: int = 0) -> Record:
    return Record(id, strategy, budget, seed, "7", True, "complete", Usage(policy_tokens=9), 0.5, (0.1, 0.9), {"a": 1})


# --- pools -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [16, 4])
def test_a_pool_gives_what_the_solver_gives(problems: list[Question], pack: Pack, together: int) -> None:
    """Batches and caches alike, so that every float is too; also where samples begin as others end."""
    problem = problems[1]
    with new_solver(pack, together) as solver:
        assert solver.policy.width == together
        pool = draw(solver, problem, 8, 3, False, lambda: False)
        replay = Replay.of(solver)
    assert pool is not None
    for strategy in ("majority", "best-of-n", "weighted"):
        outcome, usage = replay.run(problem.question, pool, Strategy.parse(strategy, 8))
        with new_solver(pack, together) as solver:
            result = solver.solve(problem.question, strategy, Budget(generations=8), problem_seed(3, problem.id))
        assert outcome.best is not None
        assert outcome.best.steps == result.steps
        assert outcome.best.answer == result.answer
        assert outcome.stop_reason == result.stop_reason
        assert outcome.support == pytest.approx(result.support, abs=1e-3)
        for count in ("generated_tokens", "forced_tokens", "verifier_tokens"):
            assert getattr(usage, count) == getattr(result.usage, count)
        # Samples that parted may meet again in a stream that a third one left, and what a later one begins with may
        # be held by none any more; a pool does not know of either.
        least = 0.9 if together < 8 else 1.0
        assert least * result.usage.policy_tokens <= usage.policy_tokens <= 1.1 * result.usage.policy_tokens


def test_a_pool_serves_greedy_and_a_vote_that_stops_early(
    solver: Solver, problems: list[Question], pools: list[Pool]
) -> None:
    for problem, pool in zip(problems, pools, strict=True):
        assert pool.greedy is not None
        greedy, cost = Replay.of(solver).run(problem.question, pool, Strategy.parse("greedy"))
        assert greedy.best is None or greedy.best.answer == pool.greedy.answer
        assert cost.policy_tokens == (pool.prefill or 0) + len(pool.greedy.tokens)
        adaptive, cost = Replay.of(solver).run(problem.question, pool, Strategy.parse("adaptive", 8))
        assert len(adaptive.traces) in (4, 8)
        assert (len(adaptive.traces) < 8) == (adaptive.stop_reason == "decided")
        assert cost.generated_tokens == sum(len(s.tokens) for s in pool.samples[: len(adaptive.traces)])


def test_a_part_of_a_pool_costs_what_the_part_alone_would(
    solver: Solver, problems: list[Question], pools: list[Pool]
) -> None:
    replay = Replay.of(solver)
    for problem, pool in zip(problems, pools, strict=True):
        costs = [replay.run(problem.question, pool, Strategy.parse("weighted", n))[1] for n in (1, 2, 4, 8)]
        for less, more in pairwise(costs):
            assert less.policy_tokens <= more.policy_tokens
            assert less.verifier_tokens <= more.verifier_tokens
        assert costs[0].policy_tokens == (pool.prefill or 0) + len(pool.samples[0].tokens)
        unshared = (pool.prefill or 0) + sum(len(sample.tokens) for sample in pool.samples)
        assert costs[-1].generated_tokens == unshared - (pool.prefill or 0)
        assert costs[-1].policy_tokens <= unshared


def test_problems_are_drawn_independently(solver: Solver, problems: list[Question], pools: list[Pool]) -> None:
    """Otherwise what is right at sample i would go together over problems."""
    renamed = Question("another", problems[1].question, problems[1].answer)
    again, other = (draw(solver, question, 8, 3, True, lambda: False) for question in (problems[1], renamed))
    assert again
    assert other
    assert [sample.tokens for sample in again.samples] == [sample.tokens for sample in pools[1].samples]
    assert [sample.tokens for sample in other.samples] != [sample.tokens for sample in again.samples]
    assert other.greedy == again.greedy


def test_a_pool_survives_json(pools: list[Pool]) -> None:
    for pool in pools:
        assert Pool.parse(json.loads(json.dumps(pool.to_dict()))) == pool


def test_a_pool_serves_no_search_and_no_more_than_it_has(
    solver: Solver, problems: list[Question], pools: list[Pool]
) -> None:
    for strategy in ("beam:n=4", "revise:n=4", "majority:n=9"):
        with pytest.raises(InputError, match="cannot serve"):
            Replay.of(solver).run(problems[0].question, pools[0], Strategy.parse(strategy))


# --- the grid --------------------------------------------------------------------------------------


def test_grid_leaves_out_what_does_not_fit() -> None:
    grid = Grid(("greedy", "majority", "revise:s=4", "beam:m=4"), (1, 4, 6), (4, 6), 1)
    assert grid.sampled == [("greedy", 1), ("majority", 1), ("majority", 4), ("majority", 6)]
    assert grid.searched == [("revise:s=4", 4), ("beam:m=4", 4), ("beam:m=4", 6)]


@pytest.mark.parametrize("strategy", ["majority:n=4", "revise:s=8", "magic", "beam:m=9"])
def test_grid_refuses_what_cannot_run(strategy: str) -> None:
    with pytest.raises(InputError, match="strategy"):
        Grid((strategy,), (1, 4), (4,), 1)


def test_sampling_strategies_are_told_from_searches() -> None:
    assert [s for s in ("weighted", "greedy", "auto", "beam:m=2", "revise") if is_sampling(s)] == ["weighted", "greedy"]


# --- records ---------------------------------------------------------------------------------------


def test_records_survive_a_cut_in_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    with Appender(path) as sink:
        sink.add([record("1").to_dict(), record("2").to_dict()])
    whole = path.read_bytes()
    for cut in (1, 20, len(whole) // 2 - 5):
        path.write_bytes(whole[:-cut])
        assert [r.id for r in read_records(path)] == ["1"]
        with Appender(path) as sink:
            sink.add([record("3").to_dict()])
        assert read_records(path) == [record("1"), record("3")]


def test_compressed_records_are_read_and_not_added_to(tmp_path: Path) -> None:
    open_study(tmp_path, {"pack": "a 1"})
    path = tmp_path / RECORDS
    with Appender(path) as sink:
        sink.add([record("1").to_dict(), record("2").to_dict()])
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(f"{RECORDS}.gz").write_bytes(packed)
    assert read_records(path) == [record("1"), record("2")]
    with pytest.raises(InputError, match=r"run `gunzip .*to add to them"):
        open_study(tmp_path, {"pack": "a 1"})
    path.with_name(f"{RECORDS}.gz").write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"cannot read .*records\.jsonl\.gz"):
        read_records(path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    path.write_text(json.dumps(record().to_dict()) + '\n{"id": 3}\n')
    with pytest.raises(InputError, match=r"records\.jsonl, line 2"):
        read_records(path)
    path.write_text("no json\n")
    with pytest.raises(InputError, match="line 1"):
        list(read_lines(path))


def test_changed_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    open_study(tmp_path / "s", {"pack": "a 1", "seeds": 1, "made_on": {"cores": 2}})
    open_study(tmp_path / "s", {"pack": "a 1", "seeds": 1, "made_on": {"cores": 4}})
    with pytest.raises(InputError, match=r'pack was "a 1" and is now "b 2".*seeds was 1 and is now 3') as refused:
        open_study(tmp_path / "s", {"pack": "b 2", "seeds": 3, "made_on": {}})
    assert "made_on" not in str(refused.value)


def test_records_without_a_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text("")
    with pytest.raises(InputError, match=CONFIG):
        open_study(tmp_path, {"pack": "a"})


# --- running ---------------------------------------------------------------------------------------


def keys(folder: Path) -> set[tuple[str, str, int, int]]:
    found = [r.key for r in read_records(folder / RECORDS)]
    assert len(found) == len(set(found))
    return set(found)


def study_of(solver: Solver, folder: Path, problems: list[Question], grid: Grid) -> Study:
    folder.mkdir(exist_ok=True)
    return Study(folder, problems, grid)


def test_a_study_is_complete_and_resumes(solver: Solver, problems: list[Question], tmp_path: Path) -> None:
    grid = Grid(("greedy", "majority", "weighted", "beam:m=2"), (1, 4), (4,), 2)
    study = study_of(solver, tmp_path / "s", problems[:2], grid)
    assert study.total() == 2 * 2 * 6
    events = study.run(solver, 2)
    next(events)
    events.close()  # as Ctrl-C does
    assert 0 < len(keys(tmp_path / "s")) < study.total()
    study = study_of(solver, tmp_path / "s", problems[:2], grid)
    assert list(study.run(solver, 2))
    assert len(keys(tmp_path / "s")) == study.total()
    assert study.missing_generations() == 0
    assert "of which" in study.summary()
    runs = [row for _, row in read_lines(tmp_path / "s" / RUNS)]
    assert len(runs) == 2
    assert all(0 < run["decoding"] <= run["seconds"] and run["joules"] > 0 for run in runs)
    for found in read_records(tmp_path / "s" / RECORDS):
        assert found.usage.seconds > 0
        assert found.usage.policy_flops > 0
        assert ("right_samples" in found.detail) == (found.strategy in ("majority", "weighted"))


def test_a_pool_whose_records_were_lost_is_not_drawn_again(
    solver: Solver, problems: list[Question], tmp_path: Path
) -> None:
    grid = Grid(("majority", "weighted"), (4,), (4,), 1)
    folder = tmp_path / "s"
    list(study_of(solver, folder, problems[:2], grid).run(solver, 2))
    before, samples = read_records(folder / RECORDS), (folder / SAMPLES).read_bytes()
    (folder / RECORDS).write_text(json.dumps(before[0].to_dict()) + "\n")
    list(study_of(solver, folder, problems[:2], grid).run(solver, 2))
    assert (folder / SAMPLES).read_bytes() == samples
    assert sorted(read_records(folder / RECORDS), key=lambda r: r.key) == sorted(before, key=lambda r: r.key)


def test_auto_says_how_hard_it_found_the_problem(solver: Solver, problems: list[Question], tmp_path: Path) -> None:
    folder = tmp_path / "s"
    list(study_of(solver, folder, problems[:1], Grid(("auto",), (8,), (8,), 1)).run(solver, 1))
    (found,) = read_records(folder / RECORDS)
    assert 0 <= found.detail["bin"] <= 4
    assert Strategy.parse(found.detail["ran"], 8)


# --- the command -----------------------------------------------------------------------------------


def bench(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        return getattr(result.exception, "exit_code", 1), str(result.exception)
    return result.exit_code, result.output


def test_one_process_at_a_time_makes_a_study_and_a_killed_one_loses_only_what_was_under_way(
    pack: Pack, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    line = [sys.executable, "-m", "edge_tts", "bench", "run", "--data", str(SAMPLE), "--out", str(out)]
    line += ["--strategies", "majority,weighted", "--budgets", "2,8", "--parallel", "2"]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    _wait(lambda: (out / RECORDS).exists() and len(read_records(out / RECORDS)) >= 8)
    code, message = bench(*line[4:])  # from this process
    assert (code, message) == (2, f"another process is adding to {out}; wait until it ends or choose another --out")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = read_records(out / RECORDS)
    with (out / RECORDS).open("ab") as file:
        file.write(b'{"id": "cut in the mid')
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert f"{len(before)} of 80 records are in" in done.stderr.replace("\n", " ")
    assert "80 of 80 records" in done.stdout
    assert read_records(out / RECORDS)[: len(before)] == before
    assert len(keys(out)) == 80
    assert {path.name for path in out.iterdir()} == {CONFIG, RECORDS, SAMPLES, RUNS}  # no lock is left
    code, message = bench("run", "--data", str(SAMPLE), "--out", str(out), "--strategies", "majority", "--budgets", "2")
    assert code == 2
    assert 'strategies was ["majority", "weighted"] and is now ["majority"]' in message


def _wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budgets", "1,x"), "not a list of whole numbers"),
        (("--budgets", "0"), "not a list of whole numbers"),
        (("--strategies", "majority,majority"), "one twice"),
        (("--strategies", "majority:n=4"), "leave n out"),
        (("--strategies", "wishing"), "unknown strategy"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_bad_options_are_said_before_anything_is_loaded(options: tuple[str, str], message: str, tmp_path: Path) -> None:
    code, found = bench("run", "--data", str(SAMPLE), "--out", str(tmp_path / "s"), *options)
    assert code == 2
    assert message in found
    assert not (tmp_path / "s").exists()
