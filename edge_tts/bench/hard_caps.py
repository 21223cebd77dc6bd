"""Solves at random memory caps, each in a control group whose hard limit is the cap; for root on Linux.

    python -m edge_tts.bench.hard_caps --model qwen2.5-coder-0.5b --solves 100 --data FILE --out records/caps.json

The kernel kills a process that takes more. Without swap, so that nothing can be put aside.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from edge_tts.bench import machine
from edge_tts.errors import InputError
from edge_tts.packs.pack import DEFAULT
from edge_tts.questions.reading import read_questions

ROOT = Path("/sys/fs/cgroup")
CAPS_MB = (150.0, 700.0)
CHAT_CAPS_MB = (500.0, 2500.0)
"""Least and largest cap, of the built-in pack and of chat models; drawn evenly on a log scale."""
BUDGETS = (1, 4, 16, 64)
STRATEGIES = ("auto", "majority", "revise", "beam", "weighted")
CHAT_STRATEGIES = ("auto", "majority", "revise")
DEADLINE_S = 5
MIB = 2**20


@contextmanager
def limited(cap_mb: float) -> Iterator[Path]:
    """A new control group with a hard limit of ``cap_mb`` MiB and no swap. Raises InputError where none can be made."""
    unified = (ROOT / "cgroup.controllers").exists()
    group = (ROOT if unified else ROOT / "memory") / f"edge-reason-{os.getpid()}"
    limits = {"memory.max": cap_mb, "memory.swap.max": 0} if unified else {"memory.limit_in_bytes": cap_mb}
    try:
        group.mkdir()
        for name, most in limits.items():
            (group / name).write_text(str(int(most * MIB)))
    except OSError as error:
        raise InputError(f"cannot make the control group {group}: {error.strerror}; run this as root") from error
    try:
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def solve(model: Sequence[str], cap_mb: float, strategy: str, budget: int, question: str) -> dict[str, Any]:
    """One solve under a hard limit: "answered", "unanswered", "refused" or "killed", and its peak."""
    run = [sys.executable, "-P", "-m", "edge_tts", "solve", *model, "--json", "--memory", f"{cap_mb:.0f}"]
    run += ["--strategy", strategy, "--budget", str(budget), "--deadline", str(DEADLINE_S), question]
    with limited(round(cap_mb)) as group:
        joined = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs"; exec "$@"', "sh", *run]
        done = subprocess.run(joined, capture_output=True, text=True, check=False)
    outcomes = {0: "answered", 4: "refused", 6: "unanswered", -signal.SIGKILL: "killed"}
    found = {"cap_mb": round(cap_mb), "strategy": strategy, "budget": budget}
    outcome = outcomes.get(done.returncode, f"exit code {done.returncode}")
    if outcome not in ("answered", "unanswered"):
        return found | {"outcome": outcome}
    return found | {"outcome": outcome, "peak_mb": round(json.loads(done.stdout)["usage"]["peak_memory_mb"], 1)}


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--solves", type=click.IntRange(1), default=200, show_default=True)
@click.option("--model", help="A GGUF or a catalogue name; the built-in pack otherwise.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Record; other models' results stay.")
def main(data: Path, solves: int, model: str | None, out: Path) -> None:
    """Solve at random caps and write a record."""
    questions = [question.question for question in read_questions(data)]
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    chosen = ["--model", model] if model else ["--pack", DEFAULT]
    least, largest = CHAT_CAPS_MB if model else CAPS_MB
    draw, rows = random.Random(0), []
    for _ in track(range(solves), "solves", console=Console(stderr=True)):
        cap = least * (largest / least) ** draw.random()
        strategy = draw.choice(CHAT_STRATEGIES if model else STRATEGIES)
        rows.append(solve(chosen, cap, strategy, draw.choice(BUDGETS), draw.choice(questions)))
    counts = Counter(row["outcome"] for row in rows)
    shares = [row["peak_mb"] / row["cap_mb"] for row in rows if "peak_mb" in row]
    found = {"solves": solves, "outcomes": dict(counts), "largest_share_of_cap": round(max(shares, default=0.0), 3)}
    record[model or DEFAULT] = {"machine": machine.describe(), **found, "rows": rows}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
