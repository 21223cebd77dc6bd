"""Models in a process of their own, and the ways it may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from questions import HARD

from edge_tts import BackendError, Budget, PackError, ResourceError, Solver, StepTaken
from edge_tts.packs.pack import Pack
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.isolated import IsolatedModels
from edge_tts.runtimes.loaded import ModelsConfig

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
LONG = Budget(generations=256)


@pytest.fixture
def solver(pack: Pack) -> Iterator[Solver]:
    with Solver(pack, profile="laptop-cpu", generations=8, isolate=True) as solver:
        yield solver


def pid(solver: Solver) -> int:
    return solver._models.pid  # type: ignore[attr-defined, no-any-return]


def gone(process: int, seconds: float) -> bool:
    """Whether it ends in time; one that nobody has waited for yet has ended."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def test_the_host_loads_no_model(pack: Pack) -> None:
    code = """
import sys
from edge_tts import Solver
if __name__ == "__main__":
    with Solver(profile="laptop-cpu", generations=2, isolate=True) as solver:
        print(solver.solve("What is 3 times 14?", "majority").stop_reason)
    print({"numpy", "llama_cpp", "onnxruntime", "tokenizers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("complete\nset()\n", "")


def test_answers_are_those_of_models_in_this_process(pack: Pack, solver: Solver) -> None:
    with Solver(pack, profile="laptop-cpu", generations=8) as local:
        here, there = (s.solve(QUESTION, "weighted", Budget(generations=8), seed=4) for s in (local, solver))
    assert (there.answer, there.steps) == (here.answer, here.steps)
    assert there.scores == pytest.approx(here.scores, abs=0.02)
    assert there.usage.policy_tokens == here.usage.policy_tokens


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_is_an_error_of_the_calls_under_way_only(solver: Solver, number: signal.Signals) -> None:
    errors: list[BackendError] = []
    stepping = threading.Barrier(3, timeout=60)

    def work(seed: int) -> None:
        try:
            for count, event in enumerate(solver.stream(HARD, "majority", LONG, seed)):
                if count == 1:
                    assert isinstance(event, StepTaken)
                    stepping.wait()
        except BackendError as error:
            errors.append(error)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for caller in callers:
        caller.start()
    stepping.wait()
    before = pid(solver)
    os.kill(before, number)  # SIGABRT is what os.abort() and a failed assertion of llama.cpp raise
    begun = time.monotonic()
    for caller in callers:
        caller.join(60)
    assert time.monotonic() - begun < 5
    assert [number.name in str(error) for error in errors] == [True, True]
    assert solver.solve(QUESTION, "greedy").finished
    assert pid(solver) != before


def test_models_that_cannot_be_loaded_are_the_same_errors(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="allow at least"):
        Solver(pack, profile="laptop-cpu", memory_mb=60, isolate=True)
    with pytest.raises(PackError, match="does not exist"):  # raised in the child
        IsolatedModels(ModelsConfig(tmp_path / "policy.gguf", EngineConfig(width=1), None))


def test_an_interrupt_in_the_terminal_is_for_the_host(solver: Solver) -> None:
    before = pid(solver)
    os.kill(before, signal.SIGINT)
    assert solver.solve(QUESTION, "greedy").finished
    assert pid(solver) == before


def test_a_script_without_a_guard_is_told(pack: Pack, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from edge_tts import Solver\nSolver(profile='laptop-cpu', isolate=True)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert 'keep its own start below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_exit_of_a_forked_process_leaves_the_child_alone(pack: Pack) -> None:
    code = """
import os, sys
from edge_tts import BackendError, Solver
if __name__ == "__main__":
    solver = Solver(profile="laptop-cpu", generations=2, isolate=True)
    before = solver._models.pid
    if not os.fork():
        with solver:
            try:
                solver.solve("What is 3 times 14?")
            except BackendError:
                sys.exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    print(solver.solve("What is 3 times 14?", "majority").stop_reason, solver._models.pid == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("7\ncomplete True\n", "")


def test_closing_ends_the_child_and_the_calls_under_way(solver: Solver) -> None:
    stream = solver.stream(HARD, "majority", LONG)
    while not isinstance(next(stream), StepTaken):
        pass
    solver.close()
    solver.close()
    assert gone(pid(solver), 1)
    with pytest.raises(BackendError, match="closed"):
        list(stream)
    with pytest.raises(BackendError, match="closed"):
        solver.solve(QUESTION)


HOST = """
import os, sys, time
from edge_tts import Solver
if __name__ == "__main__":
    solver = Solver(profile="laptop-cpu", generations=2, isolate=True)
    stream = solver.stream("What is 3 times 14?", "majority:n=64")
    next(stream)
    print(solver._models.pid, flush=True)
    {then}
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    "then",
    [
        "pass",  # it ends without closing the solver
        "raise SystemExit('failed')",
        "os._exit(3)",
        "os.abort()",
        "os.kill(os.getpid(), 9)",
        "os.kill(os.getpid(), 9) if os.fork() else time.sleep(10)",  # what it has forked keeps the pipe open
    ],
)
def test_the_child_does_not_outlive_its_host(pack: Pack, then: str) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert host.stdout is not None
    child = int(host.stdout.readline())
    host.wait(60)
    assert gone(child, 5)
    host.stdout.close()
