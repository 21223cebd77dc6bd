"""A study on a Ray cluster: runtimes in worker processes solve its units, a shard of them at a time.

Only the process that runs the study writes to its folder. A worker keeps its runtime open between shards. When a worker
or node dies, the shards that it was solving run again elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

from edge_tts.bench.datasets import DataSet
from edge_tts.bench.pool import Pool
from edge_tts.bench.records import read_config
from edge_tts.bench.runtime_settings import RuntimeSettings
from edge_tts.bench.study import Done, Grid, Run, Study, Unit, busy_seconds, config, run_units
from edge_tts.errors import BackendError, EdgeError, InputError
from edge_tts.runtimes.device import threads
from edge_tts.solver import Solver

SHARD = 16
"""Most units of a shard: enough to fill a batch, and few enough that a worker that dies loses little."""
AHEAD = 2
"""Shards submitted for each runtime that the cluster has room for: one runs, one waits."""
RETRIES = 3
"""How often a shard runs again after its worker or node has died."""
CONNECT_SECONDS = 10
"""Longest wait for an address to answer."""
POLL_SECONDS = 1.0
"""The time between two looks at the list of nodes and for Ctrl-C."""

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_py_gcs_connect_timeout_s": str(CONNECT_SECONDS),
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
"""Set before Ray is imported, unless the user has set them: no telemetry, one try to connect instead of 20 (which take
a quarter of an hour), no long messages about shards that run again."""


@dataclass(frozen=True)
class Finished:
    """The result of a shard."""

    label: str
    """The label of its units' group."""
    done: tuple[Done, ...]
    """Every unit of the shard, once."""
    run: Run
    """Its times, without the time that opening the runtime took."""


@dataclass(frozen=True)
class _Shard:
    """Units of one group, and those of their pools that are drawn already, by problem id and seed."""

    label: str
    units: tuple[Unit, ...]
    known: dict[tuple[str, int], Pool]


@dataclass(frozen=True)
class _Job:
    """What is the same for all shards of a study."""

    settings: RuntimeSettings
    grid: Grid
    parallel: int
    config: Mapping[str, Any]
    """The content of ``study.json``."""


def run_study(
    study: Study, settings: RuntimeSettings, address: str, parallel: int, cores: int | None = None
) -> Generator[tuple[str, int], None, None]:
    """:meth:`Study.run` on the Ray cluster at ``address``; for arguments and errors see :func:`run_on_ray`."""
    run = Run(0, 0.0, 0.0, 0.0)
    with closing(run_on_ray(study, settings, address, parallel, cores)) as shards, study.writing() as write:
        try:
            for shard in shards:
                run += shard.run
                yield shard.label, sum(write(done) for done in shard.done)
        finally:
            study.log_run(run)


def run_on_ray(
    study: Study, settings: RuntimeSettings, address: str, parallel: int, cores: int | None = None
) -> Generator[Finished, None, None]:
    """Solve what ``study`` lacks on the Ray cluster at ``address``; yields shards as they finish.

    ``address`` is "auto" or HOST:PORT where this machine is a node of the cluster, and ray://HOST:PORT elsewhere. A
    runtime solves ``parallel`` units at a time. It has ``cores`` cores to itself, by default as many as a runtime on
    this machine would use, and a GPU if the study was begun on one. Closing the generator cancels the running shards.

    Raises InputError where the cluster cannot be used or a node's runtime differs from the one that began the study,
    BackendError for a shard that is lost again and again, and any error of solving, with the node's name.
    """
    begun = read_config(study.folder)
    cores = cores or threads(settings.profile.threads)
    needed = {"CPU": cores, "GPU": int(begun["device"]["policy"] != "cpu")}
    job = _Job(settings.on_nodes(cores), study.grid, parallel, begun)
    ray = _connect(address)
    try:
        if not _room(ray, needed):
            raise InputError(f"the Ray cluster at {address} has {_lacking(ray, needed)}")
        yield from _run(ray, job, needed, _shards(study, _room(ray, needed)))
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    """The module ray, connected. Raises InputError within seconds where it is missing or cannot be connected."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "running on a cluster needs ray, which is not installed; run `pip install 'edge-reasoning-runtime[bench]'`"
        ) from error
    try:
        _require_listening(ray, address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster can be used at {address} ({' '.join(str(error).split())}); "
            "give auto or HOST:PORT on a machine of the cluster, and ray://HOST:10001 elsewhere"
        ) from error
    return ray


def _require_listening(ray: Any, address: str) -> None:
    """Raise OSError where nothing listens at ``address``, which Ray takes long to notice; "auto" is left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        if not address.startswith("ray://") and host in ("localhost", "127.0.0.1", "[::1]"):
            host = ray.util.get_node_ip_address()  # as ray.init does
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _room(ray: Any, needed: Mapping[str, int]) -> int:
    """How many runtimes that need ``needed`` the cluster's living nodes have room for."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(min(int(node.get(name, 0) // n) for name, n in needed.items() if n) for node in nodes)


def _lacking(ray: Any, needed: Mapping[str, int]) -> str:
    """What the cluster lacks for a runtime, what its nodes have, and what to do."""
    wanted = " and ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in needed.items() if count)
    nodes = [[int(node["Resources"].get(name, 0)) for name in needed] for node in ray.nodes() if node["Alive"]]
    found = "; ".join(f"{cpus} and {gpus}" for cpus, gpus in sorted(nodes))
    return f"no node with {wanted} for a runtime (CPUs and GPUs of its nodes: {found}); ask for fewer, or add nodes"


def _shards(study: Study, runtimes: int) -> Iterator[_Shard]:
    """The missing units in shards, small enough that each of ``runtimes`` gets a part of every group."""
    known = study.pools()
    for label, units in study.groups():
        size = max(1, min(SHARD, ceil(len(units) / runtimes)))
        for first in range(0, len(units), size):
            part = tuple(units[first : first + size])
            keys = [(unit.problem.id, unit.seed) for unit in part if unit.cell is None]
            yield _Shard(label, part, {key: known[key] for key in keys if key in known})


def _run(ray: Any, job: _Job, needed: Mapping[str, int], shards: Iterator[_Shard]) -> Generator[Finished, None, None]:
    """Submit ``AHEAD`` shards for each runtime and no more, so that memory stays flat and stopping is quick."""
    solve = ray.remote(_solve).options(num_cpus=needed["CPU"], num_gpus=needed["GPU"], max_retries=RETRIES)
    running: list[Any] = []
    try:
        while True:
            wanted = max(1, AHEAD * _room(ray, needed)) - len(running)
            running += [solve.remote(job, shard) for shard in islice(shards, max(0, wanted))]
            if not running:
                return
            ready, running = ray.wait(running, timeout=POLL_SECONDS)
            for reference in ready:
                yield _result(ray, reference)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _result(ray: Any, reference: Any) -> Finished:
    try:
        finished: Finished = ray.get(reference)
        return finished
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EdgeError):
            raise type(error.cause)(str(error.cause)) from error
        raise InputError(
            f"a node cannot run shards ({_last_line(error.cause)}); "
            "install this machine's edge-reasoning-runtime on every node"
        ) from error
    except ray.exceptions.RayError as error:
        raise BackendError(
            f"a shard was lost {RETRIES + 1} times with its worker ({type(error).__name__}); "
            "see Ray's logs on the nodes, and give --memory where they ran out of it; what was solved is kept"
        ) from error


def _last_line(error: Exception) -> str:
    """The error alone: Ray puts a traceback before it."""
    return str(error).strip().rpartition("\n")[2]


_runtime: tuple[RuntimeSettings, Solver] | None = None
"""The runtime of this worker process, and its settings."""


def _solve(job: _Job, shard: _Shard) -> Finished:
    """Solve a shard in a worker process. Every error is raised as an EdgeError that names the node."""
    try:
        solver = _opened(job)
        began, before = time.monotonic(), busy_seconds(solver)
        with closing(run_units(solver, shard.units, job.grid, job.parallel, shard.known)) as finished:
            done = tuple(finished)
        decoding, scoring = (now - then for now, then in zip(busy_seconds(solver), before, strict=True))
        return Finished(shard.label, done, Run(len(done), time.monotonic() - began, decoding, scoring))
    except EdgeError as error:
        raise type(error)(f"{_node()}: {error}") from error
    except Exception as error:
        raise BackendError(f"{_node()}: {type(error).__name__}: {error}; see Ray's logs on that node") from error


def _opened(job: _Job) -> Solver:
    """The runtime of this worker process. Raises InputError where it differs from the one that began the study."""
    global _runtime
    if _runtime is None or _runtime[0] != job.settings:
        solver = job.settings.open()
        differences = _differences(solver, job)
        if differences:
            solver.close()
            raise InputError(
                f"the runtime here differs from the one that began the study: {'; '.join(differences)}; "
                "use the same pack and settings on every node"
            )
        _runtime = (job.settings, solver)
    return _runtime[1]


def _differences(solver: Solver, job: _Job) -> list[str]:
    """One clause for each entry of the study's configuration in which ``solver`` differs."""
    data = job.config["data"]
    here = config(solver, DataSet(data["name"], (), data["sha256"]), data["problems"], job.grid)
    found = json.loads(json.dumps(here))
    clauses = []
    for name in sorted(found):
        mine, wanted = found[name], job.config.get(name)
        if name == "pack_files" and isinstance(wanted, dict):
            files = sorted(file for file in mine.keys() | wanted.keys() if mine.get(file) != wanted.get(file))
            clauses += [f"the pack's {f} is {mine.get(f, 'missing')} and was {wanted.get(f, 'missing')}" for f in files]
        elif mine != wanted:
            clauses.append(f"{name} is {json.dumps(mine)} and was {json.dumps(wanted)}")
    return clauses


def _node() -> str:
    import ray

    address: Callable[[], str] = ray.util.get_node_ip_address
    return f"node {address()} ({socket.gethostname()})"
