"""Stages of a pipeline: each runs once, in a process of its own, with its output in ``log/`` of the run's folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError


@dataclass(frozen=True)
class Stage:
    name: str
    run: Callable[[], None]


def run_stages(out: Path, stages: Iterable[Stage], until: str | None = None) -> None:
    """Run the stages of the run in ``out`` that are not done yet, up to and including ``until``.

    Raises InputError where one fails.
    """
    done = out / "done"
    (out / "log").mkdir(parents=True, exist_ok=True)
    done.mkdir(exist_ok=True)
    for stage in stages:
        marker = done / stage.name
        if not marker.exists():
            print(f"{time.strftime('%H:%M:%S')} {stage.name}", flush=True)
            stage.run()
            marker.touch()
        if stage.name == until:
            return


def recipe(out: Path, name: str, module: str, *arguments: object) -> Stage:
    """A recipe of the package ``export`` as a stage."""
    return Stage(name, lambda: run_recipe(out, name, module, *arguments))


def run_recipe(out: Path, stage: str, module: str, *arguments: object) -> None:
    """Run a recipe as a part of ``stage``. Raises InputError where it fails, with the end of its output."""
    run_command(out, stage, [sys.executable, "-P", "-m", f"edge_tts.export.{module}", *arguments])


def run_command(out: Path, stage: str, arguments: Sequence[object]) -> None:
    """Run a program as a part of ``stage``. Raises InputError where it fails, with the end of its output."""
    log = out / "log" / f"{stage}.txt"
    with log.open("a", encoding="utf-8") as sink:
        done = subprocess.run(
            [str(argument) for argument in arguments], stdout=sink, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise InputError(f"stage {stage} ended with code {done.returncode}: {last[:300]} (all of it in {log})")
