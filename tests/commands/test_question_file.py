"""``solve --file`` as users run it, on the built-in pack: bad lines, long questions, kills at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_tts.packs.pack import Pack

SAMPLE = Path(__file__).parents[1] / "data" / "svamp_sample.jsonl"
TESTS = Path(__file__).parents[1]
KILLS = 4


def command(file: Path, out: Path, *options: str) -> list[str]:
    files = ["--file", str(file), "--out", str(out)]
    return [sys.executable, "-m", "edge_tts", "solve", *files, "--strategy", "greedy", *options]


def run(command: Sequence[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def rows(out: Path) -> list[dict[str, Any]]:
    """Whole rows."""
    if not out.exists():
        return []
    lines = out.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def without_cost(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a question took depends on what was evaluated before it."""
    return [{name: value for name, value in row.items() if name != "usage"} for row in found]


def test_good_lines_are_answered_and_bad_ones_said(pack: Pack, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        b'\xef\xbb\xbf{"id": 1, "question": "Tom has 3 boxes of 8 pencils. How many?", "answer": "So:\\n#### 24"}',
        b'{"question": "2+3 \\ud83d"}',
        b"[" * 100_000,
        # More tokens than the policy's context has.
        b'{"id": "long", "question": "' + b"7 " * 9_900 + b'"}',
        b'{"id": "1", "question": "Ann reads 14 pages a day. How many does she read in 6 days?", "answer": 84}',
    ]
    file.write_bytes(b"\n".join(lines))
    done = run(command(file, out))
    assert done.returncode == 8, done.stderr
    assert "Traceback" not in done.stderr
    assert "2 answered" in done.stderr
    assert "3 failed" in done.stderr
    first, half, nested, long, last = rows(out)
    assert (first["id"], first["expected"], last["id"], last["expected"]) == (1, "24", "1", "84")
    assert isinstance(first["correct"], bool)
    assert "no whole character" in half["error"]
    assert "nested brackets" in nested["error"]
    assert (long["id"], "shorten" in long["error"] or "context" in long["error"]) == ("long", True)


def test_files_with_names_that_are_no_text(pack: Pack, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    file, out = folder + b"/caf\xe9.jsonl", folder + b"/\xff.jsonl"
    Path(os.fsdecode(file)).write_bytes('{"question": "3 × 14 = ?", "id": "é"}\n'.encode())
    for locale in ("C.UTF-8", "C"):
        env = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(command(os.fsdecode(file), os.fsdecode(out)), capture_output=True, timeout=300, env=env)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        assert b"1 answered" in done.stderr
    missing = run(command(Path("no\udce9.jsonl"), tmp_path / "o.jsonl"))
    assert missing.returncode == 2
    assert "cannot read" in missing.stderr


def test_kills_at_any_moment_lose_nothing(pack: Pack, tmp_path: Path) -> None:
    file, whole, out = tmp_path / "in.jsonl", tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(b"".join(SAMPLE.read_bytes().splitlines(keepends=True)[:16]) + b"no json\n")
    assert run(command(file, whole, "--parallel", "2")).returncode == 8
    draw = random.Random(0)
    known: dict[str, dict[str, Any]] = {}
    for kill in range(KILLS):
        process = subprocess.Popen(command(file, out, "--parallel", "2"), stderr=subprocess.DEVNULL)
        had = len(rows(out))
        # Half of them once there is something new, the others while it is starting.
        ends = time.monotonic() + (60 if kill % 2 else draw.uniform(0, 2))
        while process.poll() is None and time.monotonic() < ends and len(rows(out)) <= had:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = {json.dumps(row["id"]): row for row in rows(out) if "error" not in row}
        assert known.items() <= found.items()
        known = found
    assert known
    ended = run(command(file, out, "--parallel", "2"))
    assert ended.returncode == 8, ended.stderr
    assert without_cost(rows(out)) == without_cost(rows(whole))
    asked = [json.loads(line)["id"] for line in file.read_text(encoding="utf-8").splitlines()[:16]]
    assert [row["id"] for row in rows(out)] == [*asked, "line 17"]
    assert known.items() <= {json.dumps(row["id"]): row for row in rows(out)}.items()


@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_kills_while_a_file_is_put_in_order_lose_nothing(tmp_path: Path) -> None:
    """With answers at once, most of the time goes into the file: it has stale rows and is in another order."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from pathlib import Path\n"
        "from scripted_solver import ScriptedSolver, run\n"
        "print('ready', flush=True)\n"
        "for turn in range(1000):\n"
        "    run(ScriptedSolver(), Path(sys.argv[1 + turn % 2]), Path(sys.argv[3]))\n",
        encoding="utf-8",
    )
    one, other, out = (tmp_path / name for name in ("one.jsonl", "other.jsonl", "out.jsonl"))
    questions = [{"id": i, "question": "x" * (i + 1)} for i in range(60)]
    one.write_text("".join(json.dumps(q) + "\n" for q in questions), encoding="utf-8")
    changed = [{**q, "question": "y" * 5000} if q["id"] == 30 else q for q in reversed(questions)]
    other.write_text("".join(json.dumps(q) + "\n" for q in changed), encoding="utf-8")
    draw = random.Random(1)
    for kill in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, str(script), str(one), str(other), str(out)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kill == 0:
            while len(rows(out)) < 60:
                time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.communicate()
        kept = {row["id"] for row in rows(out)}
        assert kept >= set(range(60)) - {30}
        assert {path.name for path in tmp_path.iterdir()} - {".out.jsonl.lock", ".out.jsonl.new"} == {
            path.name for path in (script, one, other, out)
        }
    finish = "import sys; sys.path.insert(0, sys.argv[1]); from scripted_solver import *; from pathlib import Path;"
    finish += "run(ScriptedSolver(), Path(sys.argv[2]), Path(sys.argv[3]))"
    subprocess.run([sys.executable, "-c", finish, str(TESTS), str(one), str(out)], check=True, timeout=60)
    assert [row["id"] for row in rows(out)] == list(range(60))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".jsonl", ".jsonl", ".py"]
