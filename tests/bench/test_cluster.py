"""A study on a Ray cluster of two nodes, one of which is killed; and what is said where a cluster cannot be used."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge_tts.bench import cluster
from edge_tts.bench.cluster import run_on_ray, run_study
from edge_tts.bench.datasets import DataSet, digest
from edge_tts.bench.records import CONFIG, RECORDS, SAMPLES, open_study, read_records
from edge_tts.bench.runtime_settings import RuntimeSettings
from edge_tts.bench.study import RUNS, Grid, Study, config
from edge_tts.errors import InputError
from edge_tts.files.json_lines import Appender, read_lines
from edge_tts.packs.pack import Pack
from edge_tts.profiles.loader import load
from edge_tts.questions.reading import Question, read_questions
from edge_tts.solver import Solver

PROBLEMS = read_questions(Path(__file__).parents[1] / "data" / "svamp_sample.jsonl")[:6]
GRID = Grid(("majority",), (1, 2), (2,), 1)
SETTINGS = RuntimeSettings(None, load("laptop-cpu"), None, 4, 120, True, False)


@pytest.fixture(scope="module")
def nodes(pack: Pack) -> Iterator[Any]:
    """Two nodes of one CPU each that listen on the loopback address alone."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_TMPDIR", folder)  # pytest's own are too long for the paths of sockets
        for name, value in cluster.RAY_ENVIRONMENT.items():
            patch.setenv(name, value)
        import ray.cluster_utils

        # Otherwise Ray replaces 127.0.0.1 by an address that other machines can reach.
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        node = {"node_ip_address": "127.0.0.1", "include_dashboard": False, **small}
        made = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=node)
        try:
            made.add_node(**node)
            yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def solver(pack: Pack) -> Iterator[Solver]:
    with SETTINGS.open() as solver:
        yield solver


def begin(folder: Path, solver: Solver, problems: list[Question] = PROBLEMS) -> Study:
    """A study whose folder has its configuration and nothing else."""
    open_study(folder, config(solver, DataSet("sample", tuple(problems), digest(problems)), len(problems), GRID))
    return Study(folder, problems, GRID)


def rewrite(folder: Path, table: str, key: str, value: str) -> None:
    """As if the study had been begun elsewhere."""
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written[table][key] = value
    (folder / CONFIG).write_text(json.dumps(written), encoding="utf-8")


def solving(node: Any) -> list[psutil.Process]:
    """The workers of a node that have a shard under way, as Ray's process titles say."""
    (raylet,) = node.all_processes["raylet"]
    return [p for p in psutil.Process(raylet.process.pid).children() if "_solve" in " ".join(p.cmdline())]


def kill(nodes: Any, node: Any) -> None:
    """As if the machine's power went, while it has a shard under way."""
    for _ in range(1200):
        if workers := solving(node):
            break
        time.sleep(0.05)
    assert workers
    nodes.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


def test_an_error_of_a_problem_is_raised_once_and_names_the_node(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    study = begin(tmp_path, solver, [Question("endless", "How many are there? " * 200, "1")])
    with pytest.raises(InputError, match=r"^node 127\.0\.0\.1 .*context"):
        list(run_study(study, SETTINGS, nodes.address, 2, cores=1))
    assert not read_records(tmp_path / RECORDS)


def test_a_pack_with_other_files_is_refused(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    study = begin(tmp_path, solver)
    rewrite(tmp_path, "pack_files", "policy.gguf", "0" * 64)
    with pytest.raises(InputError, match=r"node 127\.0\.0\.1 .*the pack's policy\.gguf is \w+ and was 0000"):
        next(run_on_ray(study, SETTINGS, nodes.address, 2, cores=1))


def test_a_runtime_larger_than_every_node(nodes: Any, solver: Solver, tmp_path: Path) -> None:
    study = begin(tmp_path, solver)
    with pytest.raises(InputError, match=r"no node with 3 CPUs for a runtime .*: 1 and 0"):
        next(run_on_ray(study, SETTINGS, nodes.address, 2, cores=3))
    rewrite(tmp_path, "device", "policy", "cuda")
    with pytest.raises(InputError, match="no node with 1 CPU and 1 GPU for a runtime"):
        next(run_on_ray(study, SETTINGS, nodes.address, 2, cores=1))


def test_neither_stopping_nor_a_node_that_dies_loses_anything(
    nodes: Any, solver: Solver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SHARD", 1)
    here = begin(tmp_path / "here", solver)
    list(here.run(solver, 2))

    there = begin(tmp_path / "there", solver)
    stopped = run_on_ray(there, SETTINGS, nodes.address, 2, cores=1)
    (done,) = next(stopped).done
    began = time.monotonic()
    stopped.close()
    assert time.monotonic() - began < 20
    assert done.pool is not None
    with Appender(there.folder / SAMPLES) as samples:  # as if the driver died before the records were written
        samples.add([done.pool.to_dict()])

    resumed = Study(there.folder, PROBLEMS, GRID)
    progress = run_study(resumed, SETTINGS, nodes.address, 2, cores=1)
    finished = [next(progress)]
    (doomed,) = nodes.worker_nodes
    kill(nodes, doomed)
    finished += progress
    assert finished == [("samples", 2)] * 6
    assert len(resumed.done) == resumed.total() == 12

    kept = [read_records(study.folder / RECORDS) for study in (here, there)]
    assert sorted(record.key for record in kept[0]) == sorted(record.key for record in kept[1])
    assert all(record.usage.policy_flops > 0 and record.usage.seconds > 0 for record in kept[1])
    pools = [row for _, row in read_lines(there.folder / SAMPLES)]
    assert sorted(pool["id"] for pool in pools) == sorted(problem.id for problem in PROBLEMS)
    assert all(len(pool["samples"]) == 2 for pool in pools)
    (run,) = (row for _, row in read_lines(there.folder / RUNS))
    assert run["units"] == 6
    assert 0 < run["decoding"] <= run["seconds"]


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
