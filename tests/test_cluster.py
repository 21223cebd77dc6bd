"""A study on a Ray cluster of two nodes, one of which is killed; and what is said where a cluster cannot be used."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_tts.batch import Question, read_questions
from edge_tts.bench import cluster
from edge_tts.bench.cluster import Finished, run_on_ray, run_study
from edge_tts.bench.datasets import DataSet, digest
from edge_tts.bench.records import CONFIG, RECORDS, open_study, read_records
from edge_tts.bench.runtime_settings import RuntimeSettings
from edge_tts.bench.study import Grid, Study, config
from edge_tts.errors import InputError
from edge_tts.pack import Pack
from edge_tts.profiles.loader import load
from edge_tts.solver import Solver

PROBLEMS = read_questions(Path(__file__).parent / "data" / "svamp_sample.jsonl")[:6]
GRID = Grid(("majority",), (1, 2), (2,), 1)
SETTINGS = RuntimeSettings(None, load("laptop-cpu"), None, 4, 120, True, False)


@pytest.fixture(scope="module")
def nodes(pack: Pack) -> Iterator[Any]:
    """Two nodes of one CPU each that listen on the loopback address alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.RAY_ENVIRONMENT.items():
            patch.setenv(name, value)
        import ray.cluster_utils

        # Otherwise Ray replaces 127.0.0.1 by an address that other machines can reach.
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        node = {"node_ip_address": "127.0.0.1", "include_dashboard": False, **small}
        made = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=node)
        made.add_node(**node)
        yield made
        made.shutdown()


def begin(folder: Path, solver: Solver, problems: list[Question] = PROBLEMS) -> Study:
    """A study whose folder has its configuration and nothing else."""
    open_study(folder, config(solver, DataSet("sample", tuple(problems), digest(problems)), len(problems), GRID))
    return Study(folder, problems, GRID)


@pytest.fixture(scope="module")
def solver(pack: Pack) -> Iterator[Solver]:
    with SETTINGS.open() as solver:
        yield solver


def test_a_node_that_dies_loses_nothing(
    nodes: Any, solver: Solver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(cluster, "SHARD", 1)
    here, there = begin(tmp_path / "here", solver), begin(tmp_path / "there", solver)
    list(here.run(solver, 2))
    shards = run_on_ray(there, SETTINGS, nodes.address, 2, cores=1)
    finished = [next(shards)]
    while ray.available_resources().get("CPU"):
        time.sleep(0.05)  # both nodes are to be at work
    (doomed,) = nodes.worker_nodes
    nodes.remove_node(doomed, allow_graceful=False)
    finished += shards
    records = [record for shard in finished for done in shard.done for record in done.records]
    assert sorted(record.key for record in records) == sorted(r.key for r in read_records(here.folder / RECORDS))
    assert sorted(done.unit.problem.id for shard in finished for done in shard.done) == sorted(p.id for p in PROBLEMS)
    assert all(record.usage.policy_flops > 0 and record.usage.seconds > 0 for record in records)
    assert all(0 < shard.decoding <= shard.seconds and shard.label == "samples" for shard in finished)
    pools = [done.pool for shard in finished for done in shard.done]
    assert all(pool is not None and len(pool.samples) == 2 for pool in pools)
    assert not ray.is_initialized()


def test_an_error_of_a_problem_is_raised_once_and_names_the_node(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    endless = Question("endless", "How many are there? " * 200, "1")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^node 127\.0\.0\.1 .*context"):
        next(run_on_ray(begin(tmp_path, solver, [endless]), SETTINGS, nodes.address, 2, cores=1))
    assert time.monotonic() - began < 60


def test_a_pack_with_other_files_is_refused(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    study = begin(tmp_path, solver)
    written = json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))
    written["pack_files"]["policy.gguf"] = "0" * 64
    (tmp_path / CONFIG).write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(InputError, match=r"node 127\.0\.0\.1 .*the pack's policy\.gguf is \w+ and was 0000"):
        next(run_on_ray(study, SETTINGS, nodes.address, 2, cores=1))


def test_a_runtime_larger_than_every_node(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no node with 3 CPUs for a runtime .*: 1 and 0"):
        next(run_on_ray(begin(tmp_path, solver), SETTINGS, nodes.address, 2, cores=3))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere"])
def test_an_address_where_no_cluster_is(solver: Solver, tmp_path: Path, address: str) -> None:
    study = begin(tmp_path, solver)
    began = time.monotonic()
    with pytest.raises(InputError, match=f"no Ray cluster can be used at {address}"):
        next(run_on_ray(study, SETTINGS, address, 2))
    assert time.monotonic() - began < 30


def test_settings_for_a_node_find_the_same_pack_from_anywhere(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(pack.folder)
    monkeypatch.chdir(tmp_path)
    assert replace(SETTINGS, pack="mine").on_nodes(3).pack == str(tmp_path / "mine")
    assert replace(SETTINGS, pack=pack.name).on_nodes(3).pack == pack.name
    assert SETTINGS.on_nodes(3).profile.threads == 3
