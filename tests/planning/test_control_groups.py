"""Limits of control groups, read from trees as Linux shows them; cores that a process may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edge_tts.profiles.control_groups import cpu_limit, memory_limit
from edge_tts.profiles.detect import cores, memory_limit_mb
from edge_tts.runtimes.device import threads

MIB = 2**20
NONE = 9223372036854771712
"""What version 1 calls no limit."""


class Tree:
    """A fake /sys/fs/cgroup and /proc/self/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.root, self.membership = folder / "cgroup", folder / "self"
        self.root.mkdir()

    def member(self, *lines: str) -> Tree:
        self.membership.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return self

    def file(self, name: str, content: object) -> Tree:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
        return self

    @property
    def memory(self) -> float | None:
        found = memory_limit(self.root, self.membership)
        return None if found is None else found / MIB

    @property
    def cpus(self) -> float | None:
        return cpu_limit(self.root, self.membership)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_2_the_own_group_and_those_above(tree: Tree) -> None:
    tree.member("0::/user.slice/job.scope/part")
    assert (tree.memory, tree.cpus) == (None, None)
    tree.file("user.slice/job.scope/part/memory.max", "max").file("user.slice/job.scope/part/cpu.max", "max 100000")
    assert (tree.memory, tree.cpus) == (None, None)
    tree.file("user.slice/memory.max", 900 * MIB).file("user.slice/cpu.max", "350000 100000")
    assert (tree.memory, tree.cpus) == (900, 3.5)
    tree.file("user.slice/job.scope/memory.high", 700 * MIB).file("user.slice/job.scope/cpu.max", "50000 25000")
    assert (tree.memory, tree.cpus) == (700, 2)
    tree.file("user.slice/job.scope/part/memory.max", 512 * MIB).file(
        "user.slice/job.scope/part/cpu.max", "50000 100000"
    )
    assert (tree.memory, tree.cpus) == (512, 0.5)
    tree.file("other.slice/memory.max", MIB).file("other.slice/cpu.max", "1000 100000")  # not of this process
    assert (tree.memory, tree.cpus) == (512, 0.5)


def test_version_2_in_a_container_with_a_name_space(tree: Tree) -> None:
    tree.member("0::/").file("memory.max", 512 * MIB).file("cpu.max", "150000 100000")
    assert (tree.memory, tree.cpus) == (512, 1.5)


@pytest.mark.parametrize("path", ["/../../other", "/docker/0123abc", "/a\0b"])
def test_paths_that_only_the_host_has(tree: Tree, path: str) -> None:
    tree.member(f"0::{path}").file("memory.max", 512 * MIB).file("cpu.max", "150000 100000")
    assert (tree.memory, tree.cpus) == (512, 1.5)


def test_version_1_has_a_hierarchy_for_each_controller(tree: Tree) -> None:
    tree.member("9:name=systemd:/", "4:memory:/api/job", "2:cpu,cpuacct:/batch", "0::/")
    tree.file("memory/memory.limit_in_bytes", NONE).file("memory/api/memory.limit_in_bytes", 800 * MIB)
    tree.file("cpu,cpuacct/cpu.cfs_quota_us", -1).file("cpu,cpuacct/cpu.cfs_period_us", 100_000)
    assert (tree.memory, tree.cpus) == (800, None)
    tree.file("memory/api/job/memory.limit_in_bytes", 600 * MIB)
    tree.file("cpu,cpuacct/batch/cpu.cfs_quota_us", 120_000).file("cpu,cpuacct/batch/cpu.cfs_period_us", 100_000)
    assert (tree.memory, tree.cpus) == (600, 1.2)


def test_both_versions_together(tree: Tree) -> None:
    tree.member("4:memory:/job", "0::/slice")
    tree.file("memory/job/memory.limit_in_bytes", 700 * MIB).file("unified/slice/cpu.max", "100000 100000")
    assert (tree.memory, tree.cpus) == (700, 1)


@pytest.mark.parametrize("content", ["", "nonsense", "0", "-5", "12 34 56", "1e9", "\x00"])
def test_what_is_no_limit_is_none(tree: Tree, content: str) -> None:
    tree.member("0::/job", "broken", "4:memory", "").file("job/memory.max", content).file("job/cpu.max", content)
    tree.file("job/memory.limit_in_bytes", content).file("job/cpu.cfs_quota_us", content)
    assert tree.cpus is None
    assert tree.memory is None


def test_where_there_are_no_groups(tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "none", tmp_path / "none") is None
    assert cpu_limit(tmp_path / "none", tmp_path / "none") is None
    assert memory_limit_mb(tmp_path / "none", tmp_path / "none") == psutil.virtual_memory().total / MIB


def test_the_machine_and_its_groups_limit_memory_together(tree: Tree) -> None:
    tree.member("0::/job").file("job/memory.max", 512 * MIB)
    assert memory_limit_mb(tree.root, tree.membership) == 512
    tree.file("job/memory.max", NONE)
    assert memory_limit_mb(tree.root, tree.membership) == psutil.virtual_memory().total / MIB


def test_cores_keep_to_quota_and_affinity(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    tree.member("0::/job")
    assert cores(tree.root, tree.membership) == 8
    for quota, count in (("250000 100000", 3), ("100000 100000", 1), ("5000 100000", 1), ("max 100000", 8)):
        tree.file("job/cpu.max", quota)
        assert cores(tree.root, tree.membership) == count
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores(tree.root, tree.membership) == 2


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
def test_a_process_that_is_tied_to_a_core_has_one() -> None:
    core = str(max(os.sched_getaffinity(0)))
    code = (
        "from edge_tts.profiles.loader import detect; from edge_tts.runtimes.device import threads; "
        "print(threads(None), threads(3), detect()[1])"
    )
    done = subprocess.run(
        ["taskset", "-c", core, sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("1 3 ")
    assert "1 CPU core," in done.stdout or "CPU cores" not in done.stdout


def test_threads_of_this_process() -> None:
    assert threads(None) == cores()
    assert threads(0) == 1
