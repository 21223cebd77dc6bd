"""The sandbox for programs: what it computes, and that no program costs more than itself."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge_tts.bench.hostile import HOSTILE, PROGRAMS, WITNESS, ended, generated
from edge_tts.errors import BackendError
from edge_tts.reasoning.interpreter import MOST_CHARACTERS, Interpreter, Limits, Run

SECONDS_EACH = 4
"""More than the limit of a run, its grace and a new worker, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    with Interpreter() as made:
        yield made


def values(interpreter: Interpreter, program: str) -> dict[str, str]:
    run = interpreter.run(program.split("\n"))
    assert run.error == ""
    return {value.name: value.value for value in run.values}


def workers() -> list[psutil.Process]:
    """The workers that this process started."""
    return [child for child in psutil.Process().children() if child.name().startswith("monty")]


def the_worker(interpreter: Interpreter) -> psutil.Process:
    before = {worker.pid for worker in workers()}
    interpreter.start()
    (made,) = (worker for worker in workers() if worker.pid not in before)
    return made


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("a = 7.0", "7"),
        ("a = 0.1 + 0.2", "0.3"),
        ("a = 1 / 3", "0.3333333333"),
        ("a = 1234567890.129", "1234567890.13"),
        ("a = 10 ** 30", "1" + "0" * 30),
        ("a = -0.0", "0"),
        ("a = 2 > 1", "Yes"),
        ("a = '  B '", "B"),
        ("a = [1, 2.50, 'x']", "1, 2.5, x"),
        ("import math\na = math.comb(5, 2)", "10"),
        ("from decimal import Decimal\na = Decimal('1.10') * 3", "3.3"),
        ("from datetime import date, timedelta\na = date(2024, 2, 28) + timedelta(days=2)", "2024-03-01"),
        ("from datetime import timedelta\na = timedelta(hours=24)", "1 day"),
        ("from datetime import datetime\na = datetime(2024, 1, 2, 9, 30).time()", "09:30"),
        ("type = 1\nstr = 2\nlocals = 3\na = type + str + locals", "6"),
        ("total = 0\nfor part in [1, 2, 3]:\n    total += part\na = total", "6"),
    ],
)
def test_values_are_read_as_people_write_them(interpreter: Interpreter, program: str, expected: str) -> None:
    assert values(interpreter, program)["a"] == expected


@pytest.mark.parametrize("value", ["None", "{}", "[]", "[[1]]", "float('inf')", "10 ** 500", "len", "1j", "object()"])
def test_what_answers_nothing_is_no_value(interpreter: Interpreter, value: str) -> None:
    assert "a" not in values(interpreter, f"b = 1\na = {value}" if value != "object()" else "class A: pass\na = A()")


def test_variables_keep_the_order_of_their_first_assignment(interpreter: Interpreter) -> None:
    assert list(values(interpreter, "b = 1\na = 2\nb = 3")) == ["b", "a"]


def test_a_program_is_run_once_whoever_asks(interpreter: Interpreter) -> None:
    first = interpreter.run([*WITNESS, "x = 41"])
    again = interpreter.run([*WITNESS, "x = 41"])
    assert first.values == again.values
    assert first.seconds > 0 == again.seconds


def test_programs_do_not_see_each_other(interpreter: Interpreter) -> None:
    interpreter.run(["secret = 1"])
    assert interpreter.run(["x = secret"]).error == "NameError: name 'secret' is not defined"


def test_a_random_program_gives_the_same_again() -> None:
    program = ["import random", "a = random.randint(0, 10 ** 9)"]
    with Interpreter() as one, Interpreter() as other:
        assert one.run(program).values == other.run(program).values != ()


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("import numpy", "ModuleNotFoundError"),
        ("x = open('/etc/passwd').read()", "PermissionError"),
        ("import os\nx = os.environ['HOME']", "RuntimeError: 'os.environ' is not supported"),
        ("import socket", "ModuleNotFoundError"),
        ("while True:\n    pass", "TimeoutError"),
        ("x = 'a' * 10 ** 9", "MemoryError"),
        ("x = 9 ** 9 ** 9 ** 9", "MemoryError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("for i in range(10 ** 9): print('a' * 1000)", "Exception: the program prints more than"),
        ("x = '" + "a" * MOST_CHARACTERS + "'", "the program has more than"),
        ("Let us think step by step.", "SyntaxError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_errors_say_what_happened(interpreter: Interpreter, program: str, error: str) -> None:
    run = interpreter.run(program.split("\n"))
    assert run.error.startswith(error)
    assert run.values == ()


def test_sleep_takes_no_time(interpreter: Interpreter) -> None:
    begin = time.monotonic()
    assert values(interpreter, "import time\ntime.sleep(1000)\na = 1") == {"a": "1"}
    assert time.monotonic() - begin < SECONDS_EACH


# --- hostile programs ------------------------------------------------------------------------


def test_hostile_programs_cost_no_more_than_themselves(interpreter: Interpreter) -> None:
    programs = [*HOSTILE, *generated(PROGRAMS - len(HOSTILE))]
    assert len(programs) >= 500
    assert 100 < len(HOSTILE) < PROGRAMS
    begin = time.monotonic()
    failed = 0
    for number, program in enumerate(programs):
        one = time.monotonic()
        run = interpreter.run(program.split("\n"))
        assert time.monotonic() - one < SECONDS_EACH, program[:100]
        assert len(run.error) <= 300
        for value in run.values:
            assert isinstance(value.name, str)
            assert isinstance(value.value, str)
            assert len(value.value) <= 5000, program[:100]
        failed += bool(run.error)
        if number % 10 == 0:
            # Another candidate, with a line of its own so that it is really run.
            assert values(interpreter, "\n".join([*WITNESS, f"x = {number}"]))["left"] == "76"
    assert failed > len(programs) / 3
    assert time.monotonic() - begin < 120
    assert len(workers()) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("", "ran"),
        ("NameError: name 'x' is not defined", "NameError"),
        ("SystemExit", "SystemExit"),
        ("Exception: the program prints more than 20000 characters", "the program prints more than N characters"),
        ("the interpreter ended while it ran this program", "the interpreter ended while it ran this program"),
    ],
)
def test_ends_are_told_by_kind(error: str, kind: str) -> None:
    assert ended(Run(error=error)) == kind


# --- workers ---------------------------------------------------------------------------------


def test_nothing_is_started_before_it_is_needed_and_closing_ends_it() -> None:
    before = len(workers())
    interpreter = Interpreter()
    assert len(workers()) == before
    assert interpreter.run(["x = 1"]).error == ""
    assert len(workers()) == before + 1
    interpreter.close()
    interpreter.close()
    assert len(workers()) == before
    with pytest.raises(BackendError, match="was closed"):
        interpreter.run(["x = 2"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_worker_killed_between_programs_is_replaced() -> None:
    with Interpreter() as interpreter:
        the_worker(interpreter).kill()
        runs = [interpreter.run([*WITNESS, f"x = {number}"]) for number in range(3)]
        assert sum(bool(run.error) for run in runs) <= 1
        assert not runs[-1].error
        assert not interpreter.run([*WITNESS, "x = 0"]).error  # what failed with the worker is not remembered


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_worker_killed_at_work_costs_one_candidate() -> None:
    with Interpreter(Limits(seconds=30)) as interpreter:
        worker = the_worker(interpreter)
        killer = threading.Timer(0.3, worker.kill)
        killer.start()
        begin = time.monotonic()
        run = interpreter.run(["while True: pass"])
        assert run.error == "the interpreter ended while it ran this program"
        assert time.monotonic() - begin < 20
        assert values(interpreter, "\n".join(WITNESS))["left"] == "76"


def test_a_worker_that_does_not_start_is_one_clear_error(tmp_path: Path) -> None:
    interpreter = Interpreter(binary=tmp_path / "missing")
    with pytest.raises(BackendError, match=r"does not start: .*use the text format"):
        interpreter.start()
    with pytest.raises(BackendError, match="does not start"):
        interpreter.run(["x = 1"])
    interpreter.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program here")
def test_a_worker_that_ends_at_once_is_one_clear_error(tmp_path: Path) -> None:
    wrong = tmp_path / "worker"
    wrong.write_text("#!/bin/sh\nexit 3\n")
    wrong.chmod(wrong.stat().st_mode | stat.S_IXUSR)
    with Interpreter(binary=wrong) as interpreter, pytest.raises(BackendError, match="does not start"):
        interpreter.start()


def test_a_frozen_app_uses_the_worker_it_carries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    with Interpreter() as interpreter, pytest.raises(BackendError, match="does not start"):
        interpreter.start()  # the installed one is not taken instead
    installed = Path(sysconfig.get_path("scripts"), "monty.exe" if sys.platform == "win32" else "monty")
    shutil.copy(installed, tmp_path)
    with Interpreter() as interpreter:
        assert values(interpreter, "a = 6 * 7") == {"a": "42"}


OWNER = """
import os, sys, psutil
from edge_tts.reasoning.interpreter import Interpreter
interpreter = Interpreter()
interpreter.run(["x = 1"])
print(*(child.pid for child in psutil.Process().children()), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("how", ["killed", "without close"])
def test_a_worker_ends_with_its_owner(how: str) -> None:
    output = subprocess.run([sys.executable, "-c", OWNER, how], capture_output=True, text=True, timeout=60)
    (pid,) = map(int, output.stdout.split())
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"worker {pid} lives on")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_told_and_leaves_the_worker_alone() -> None:
    code = """
import os, signal
from edge_tts.errors import BackendError
from edge_tts.reasoning.interpreter import Interpreter
interpreter = Interpreter()
interpreter.run(["x = 1"])
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        interpreter.run(["x = 2"])
    except BackendError as error:
        print(error, flush=True)
    interpreter.close()
    del interpreter
    os._exit(0)
os.waitpid(child, 0)
print(interpreter.run(["x = 3"]).values, flush=True)
interpreter.close()
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    told, run = output.stdout.splitlines()
    assert "start that process with the 'spawn' method" in told
    assert "value='3'" in run


def test_threads_share_an_interpreter(interpreter: Interpreter) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = values(interpreter, f"a = {number} * 1000 + 7")["a"]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: str(number * 1000 + 7) for number in range(8)}


def test_importing_it_starts_and_loads_nothing() -> None:
    code = "import sys, edge_tts.reasoning.program_format; print('pydantic_monty' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert output.stdout.strip() == "False"
