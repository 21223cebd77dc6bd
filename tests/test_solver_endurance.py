"""A solver in a process that goes on for long: exceptions, interrupts, and many that are opened and closed."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tiny_model import write_tiny_model

from edge_tts import BackendError, Budget, Solver, StepTaken

QUESTION = "Tom has 3 boxes of 8 pencils. How many pencils are there?"
INTERRUPTS = 100
CYCLES = int(os.environ.get("EDGE_REASON_TEST_CYCLES", "100"))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def opened(model: Path, max_tokens: int = 60) -> Solver:
    """With room for examples of programs, of which each byte is a token."""
    return Solver(model=model, profile="laptop-cpu", generations=4, prompt_tokens=1000, max_tokens=max_tokens)


@pytest.fixture
def solver(tiny_model: Path) -> Iterator[Solver]:
    with opened(tiny_model) as solver:
        yield solver


def wait_until_idle(solver: Solver) -> None:
    """Return once the engine has nothing to do."""
    ends = time.monotonic() + 30
    while solver.policy._streams.jobs or solver.policy._evaluating:  # type: ignore[attr-defined]
        assert time.monotonic() < ends
        time.sleep(0.001)


def wait_for_threads(most: int) -> None:
    """Return once no more are left: a timer that was cancelled has to run to know it."""
    ends = time.monotonic() + 10
    while threading.active_count() > most:
        assert time.monotonic() < ends
        time.sleep(0.01)


def said(solver: Solver) -> str:
    """What a seed always says."""
    return solver.solve(QUESTION, "greedy").partial[0]


def test_an_exception_in_the_callers_loop_ends_the_work(solver: Solver) -> None:
    before = said(solver)
    threads = threading.active_count()

    def ask(seed: int) -> None:
        for event in solver.stream(QUESTION, "majority", Budget(generations=64), seed):
            if isinstance(event, StepTaken):
                raise LookupError(seed)

    for seed in range(50):
        with pytest.raises(LookupError):
            ask(seed)
        wait_until_idle(solver)
    assert not solver._calls
    wait_for_threads(threads)
    assert said(solver) == before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts")
def test_an_interrupt_at_any_moment_ends_the_call_and_nothing_else(solver: Solver) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = said(solver)
    threads = threading.active_count()
    earlier = signal.signal(signal.SIGALRM, interrupt)
    draw = random.Random(0)
    interrupted = 0
    try:
        for turn in range(INTERRUPTS):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0005, 0.1))
                solver.solve(f"{turn} {QUESTION}", "majority", Budget(generations=16))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            wait_until_idle(solver)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert interrupted > INTERRUPTS / 2
    assert not solver._calls
    wait_for_threads(threads)
    assert said(solver) == before


@pytest.mark.skipif(sys.platform == "win32", reason="sends an interrupt")
def test_an_interrupt_while_a_solver_is_opened_or_closed_leaves_nothing(tiny_model: Path) -> None:
    def cycle() -> None:
        with opened(tiny_model, max_tokens=8) as solver:
            solver.solve(QUESTION, "greedy")

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    cycle()
    begun = time.monotonic()
    cycle()
    whole, threads = time.monotonic() - begun, threading.active_count()
    draw = random.Random(0)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = 0
    try:
        for _ in range(INTERRUPTS // 2):
            timer = threading.Timer(draw.uniform(0, whole), press)
            try:
                timer.start()
                cycle()
                timer.join()
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert interrupted
    wait_for_threads(threads)


def test_solvers_that_are_opened_and_closed_leave_nothing(tiny_model: Path) -> None:
    process = psutil.Process()

    def cycle(turn: int) -> None:
        with opened(tiny_model, max_tokens=8) as solver:
            events = solver.stream(QUESTION, "majority", seed=turn)
            while not isinstance(next(events), StepTaken):
                pass
            if turn % 2:
                events.close()
            if turn % 20 == 0:
                solver.solve("3 + 4 = ?", "greedy", format="program")  # starts the process that runs programs

    def held() -> tuple[int, int, int]:
        files = process.num_handles() if sys.platform == "win32" else process.num_fds()
        return files, threading.active_count(), len(process.children())

    for turn in range(20):
        cycle(turn)
    before, memory = held(), process.memory_info().rss
    for turn in range(CYCLES):
        cycle(turn)
    # Fewer is no leak: what earlier tests left may be collected meanwhile.
    assert all(now <= then for now, then in zip(held(), before, strict=True)), (held(), before)
    assert process.memory_info().rss - memory < 30 * 2**20


def test_a_closed_solver_says_so(tiny_model: Path) -> None:
    solver = opened(tiny_model)
    events = solver.stream(QUESTION, "majority")
    next(events)
    solver.close()
    solver.close()
    with pytest.raises(BackendError):
        list(events)
    with pytest.raises(BackendError):
        solver.solve(QUESTION)
