"""The library as a host embeds it: cancelling, asyncio, threads, processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from questions import HARD

import edge_tts
from edge_tts import (
    BackendError,
    Budget,
    Done,
    InputError,
    ResourceError,
    Result,
    Sampling,
    Solver,
    StepTaken,
    StrategyChosen,
    plan,
)
from edge_tts.bench import sharing
from edge_tts.cancellation import Cancellation
from edge_tts.core import Verifier
from edge_tts.packs.pack import Pack

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
LONG = Budget(generations=256)
AT_ONCE_S = 0.1
"""What a call may take to end once it is cancelled."""
TRIALS = 3
"""Waits are judged by their median: a busy machine may leave any thread waiting for longer now and then."""


@pytest.fixture(scope="module", params=[False, True], ids=["here", "isolated"])
def solver(pack: Pack, request: pytest.FixtureRequest) -> Iterator[Solver]:
    with Solver(pack, profile="laptop-cpu", generations=8, isolate=request.param) as solver:
        yield solver


@pytest.fixture(scope="module")
def local(pack: Pack) -> Iterator[Solver]:
    with Solver(pack, profile="laptop-cpu", generations=8) as solver:
        yield solver


def is_idle(solver: Solver) -> bool:
    """Whether the engine has nothing to do any more."""
    return not solver.policy._streams.jobs and not solver.policy._evaluating  # type: ignore[attr-defined]


def until(condition: Callable[[], object]) -> float:
    """The instant from which it holds."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)
    return time.monotonic()


# --- what a host imports ---------------------------------------------------------------------


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import edge_tts, sys; print({'edge_tts.core', 'edge_tts.solver', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


def test_a_solver_that_blocks_does_not_pay_for_asyncio() -> None:
    code = "import edge_tts.solver, sys; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_every_name_is_there_and_others_are_not() -> None:
    assert all(getattr(edge_tts, name) for name in edge_tts.__all__)
    assert set(edge_tts.__all__) <= set(dir(edge_tts))
    with pytest.raises(AttributeError, match="no attribute 'Solve'"):
        edge_tts.Solve  # noqa: B018


def test_a_plan_is_made_before_anything_is_loaded(pack: Pack, local: Solver) -> None:
    assert plan(pack, "laptop-cpu", generations=8) == local.plan
    assert plan(pack, "laptop-cpu", memory_mb=300).memory.total <= 300
    with pytest.raises(ResourceError, match="allow at least"):
        plan(pack, "laptop-cpu", memory_mb=60)


# --- calls -----------------------------------------------------------------------------------


def test_a_stream_ends_with_its_result(solver: Solver) -> None:
    *events, last = solver.stream(QUESTION, "majority", Budget(generations=4))
    assert isinstance(events[0], StrategyChosen)
    assert isinstance(last, Done)
    assert not any(isinstance(event, Done) for event in events)
    assert last.result.answer is not None
    assert last.result.prompt_tokens == len(solver.policy.tokenize(solver.pack.prompts.render(QUESTION), special=True))
    assert last.result.usage.peak_memory_mb > 200  # that of the process with the models


def test_sampling_of_a_call_takes_the_place_of_the_packs(solver: Solver) -> None:
    short = solver.solve(QUESTION, "majority", Budget(generations=4), sampling=Sampling(max_tokens=3))
    assert (short.finished, short.usage.generated_tokens <= 4 * (3 + 16)) == (False, True)
    cold = solver.solve(QUESTION, "majority", Budget(generations=4), sampling=Sampling(temperature=0))
    assert cold.support == 1.0


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Sampling(temperature=-1), "temperature must be 0 or at least 0.01; got -1"),
        (lambda: Sampling(temperature=float("nan")), "temperature must be 0 or at least 0.01; got nan"),
        (lambda: Sampling(max_tokens=0), "max_tokens must be at least 1; got 0"),
        (lambda: Sampling(top_k=-1), r"top_k must be at least 0 .*; got -1"),
        (lambda: Budget(generations=0), "0 generations"),
        (lambda: Budget(seconds=-2.0), r"-2\.0 seconds"),
        (lambda: Budget(joules=float("nan")), "nan joules"),
    ],
)
def test_settings_out_of_range_are_refused_where_they_are_made(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make()


# --- cancelling ------------------------------------------------------------------------------


def test_cancel_ends_every_call_at_once_with_what_it_has(solver: Solver) -> None:
    waits = []
    for trial in range(TRIALS):
        results: list[Result] = []
        finished = threading.Semaphore(0)

        def work(seed: int, results: list[Result] = results, finished: threading.Semaphore = finished) -> None:
            for event in solver.stream(HARD, "majority", LONG, seed):
                if isinstance(event, Done):
                    results.append(event.result)
                elif isinstance(event, StepTaken) and event.finished:
                    finished.release()

        callers = [threading.Thread(target=work, args=(10 * trial + i,)) for i in range(3)]
        for caller in callers:
            caller.start()
        for _ in range(6):
            assert finished.acquire(timeout=60)
        begun = time.monotonic()
        solver.cancel()
        for caller in callers:
            caller.join(60)
        waits.append(time.monotonic() - begun)
        assert [result.stop_reason for result in results] == ["cancelled"] * 3
        assert any(result.finished and result.answer and result.support > 0 for result in results)
        assert sum(result.usage.policy_tokens for result in results) > 0
    assert statistics.median(waits) < AT_ONCE_S
    assert solver.solve(QUESTION, "greedy").stop_reason == "complete"


@pytest.mark.parametrize("strategy", ["auto", "weighted", "beam", "lookahead:k=1", "dvts", "particles", "revise"])
def test_every_strategy_can_be_cancelled(solver: Solver, strategy: str) -> None:
    waits = []
    apart = Sampling(temperature=3.0)  # samples that agree are drawn once, and soon done
    for trial in range(TRIALS):
        asked: list[float] = []
        timer = threading.Timer(
            0.1 + 0.13 * trial, lambda asked=asked: (asked.append(time.monotonic()), solver.cancel())
        )
        timer.start()
        result = solver.solve(QUESTION.replace("12", str(20 + trial)), strategy, LONG, sampling=apart)
        waits.append(time.monotonic() - asked[0])
        assert result.stop_reason == "cancelled"
    assert statistics.median(waits) < AT_ONCE_S


def test_closing_a_stream_stops_the_engine(local: Solver) -> None:
    waits = []
    for seed in range(TRIALS):
        stream = local.stream(HARD, "majority", LONG, seed)
        while not isinstance(next(stream), StepTaken):
            pass
        begun = time.monotonic()
        stream.close()
        waits.append(until(lambda: is_idle(local)) - begun)
    assert statistics.median(waits) < AT_ONCE_S


def test_scoring_ends_at_once(verifier: Verifier) -> None:
    steps = [f"{i}*8={8 * i}" for i in range(400)]
    traces = [steps[start : start + 6] for start in range(0, 396, 6)]
    begun = time.monotonic()
    assert len(verifier.score(QUESTION, traces)) == len(traces)
    whole = time.monotonic() - begun
    waits = []
    for trial in range(TRIALS):
        cancel = Cancellation()
        ends = threading.Timer(whole / 4, cancel.request)
        ends.start()
        other = [[f"{trial}+{step}" for step in trace] for trace in traces]
        begun = time.monotonic()
        scored = verifier.score(QUESTION, other, cancel)
        waits.append(time.monotonic() - begun - whole / 4)
        assert len(scored) < len(traces)
        for cut, again in zip(scored, verifier.score(QUESTION, other[: len(scored)]), strict=True):
            assert cut.scores == pytest.approx(again.scores, abs=0.02)
    assert statistics.median(waits) < AT_ONCE_S
    assert verifier.score(QUESTION, traces, cancel) == []


# --- asyncio ---------------------------------------------------------------------------------


def test_more_tasks_than_cores_share_a_solver(solver: Solver) -> None:
    async def work() -> list[Result]:
        budget = Budget(generations=1, seconds=300)
        return await asyncio.gather(*(solver.asolve(QUESTION, "majority", budget, seed) for seed in range(count)))

    count = 2 * (os.cpu_count() or 1) + 8  # a loop's own executor has fewer threads
    results = asyncio.run(work())
    assert len(results) == count
    assert all(result.stop_reason == "complete" for result in results)


def test_an_asynchronous_stream_has_the_same_events(solver: Solver) -> None:
    async def work() -> list[object]:
        return [event async for event in solver.astream(QUESTION, "greedy", seed=3)]

    *events, last = asyncio.run(work())
    assert isinstance(last, Done)
    assert events == list(solver.stream(QUESTION, "greedy", seed=3))[:-1]


def test_errors_arrive_in_a_task(solver: Solver) -> None:
    with pytest.raises(InputError, match="empty"):
        asyncio.run(solver.asolve("  "))


@pytest.mark.parametrize("how", ["aclose", "cancelled task", "left loop", "cancel"])
def test_leaving_an_asynchronous_stream_stops_the_engine(local: Solver, how: str) -> None:
    async def first_step(seed: int, seen: asyncio.Event) -> Result | None:
        async for event in local.astream(HARD, "majority", LONG, seed):
            if isinstance(event, Done):
                return event.result
            if isinstance(event, StepTaken):
                seen.set()
                if how == "left loop":
                    return None
        raise AssertionError

    async def leave(seed: int) -> float:
        if how == "aclose":
            async with aclosing(local.astream(HARD, "majority", LONG, seed)) as events:
                while not isinstance(await anext(events), StepTaken):
                    pass
                begun = time.monotonic()
            return begun
        seen = asyncio.Event()
        task = asyncio.create_task(first_step(seed, seen))
        await seen.wait()
        begun = time.monotonic()
        if how == "cancelled task":
            task.cancel()
        elif how == "cancel":
            local.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError) == (how == "cancelled task")
        if how == "cancel":
            assert isinstance(ended, Result)
            assert ended.stop_reason == "cancelled"
        return begun

    waits = []
    for seed in range(TRIALS):
        begun = asyncio.run(leave(seed))
        waits.append(until(lambda: is_idle(local)) - begun)
    assert statistics.median(waits) < AT_ONCE_S


def test_a_task_that_is_cancelled_while_it_waits_for_its_turn(local: Solver) -> None:
    async def work() -> float:
        crowd = asyncio.create_task(local.asolve(HARD, "majority", LONG))
        await asyncio.sleep(0.3)
        late = asyncio.create_task(local.asolve(QUESTION.replace("12", "13"), "greedy"))
        await asyncio.sleep(0)
        begun = time.monotonic()
        late.cancel()
        await asyncio.wait([late])
        waited = time.monotonic() - begun
        assert not crowd.done()
        crowd.cancel()
        await asyncio.wait([crowd])
        return waited

    assert statistics.median(asyncio.run(work()) for _ in range(TRIALS)) < AT_ONCE_S


# --- several callers -------------------------------------------------------------------------


def test_a_greedy_sample_does_not_wait_for_hundreds(solver: Solver) -> None:
    finished = 0

    def crowd() -> None:
        nonlocal finished
        for event in solver.stream(HARD, "majority", LONG):
            finished += isinstance(event, StepTaken) and event.finished

    caller = threading.Thread(target=crowd)
    caller.start()
    until(lambda: finished)
    before = finished
    assert solver.solve(QUESTION.replace("12", "14"), "greedy").stop_reason == "complete"
    assert finished - before < LONG.generations / 3  # type: ignore[operator]
    solver.cancel()
    caller.join(60)


def test_what_sharing_gains_is_measured_in_turns(local: Solver) -> None:
    questions = [QUESTION.replace("12", str(n)) for n in (15, 16, 17, 18)]
    found = sharing.measure(local, questions, "majority", 1)
    (trial,) = found["each"]
    assert trial["questions"] == (questions[2], questions[3])  # the first two warmed up
    assert found["median_ratio"] == trial["ratio"] > 0
    assert max(trial["waits_s"]) <= trial["together_s"]


def test_several_solvers_work_side_by_side(pack: Pack, local: Solver) -> None:
    with Solver(pack, profile="laptop-cpu", generations=4, isolate=False) as other:
        solvers = [local, other, local, other]
        results: list[Result] = []
        threads = [
            threading.Thread(
                target=lambda s=solver: results.append(s.solve(QUESTION, "weighted", Budget(generations=4)))
            )
            for solver in solvers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert [result.stop_reason for result in results] == ["complete"] * 4
    assert local.solve(QUESTION, "greedy").finished
    with pytest.raises(BackendError, match="closed"):
        other.solve(QUESTION, "greedy")


# --- processes -------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_is_told_at_once_and_harms_nothing(solver: Solver, tmp_path: Path) -> None:
    said = tmp_path / "said"
    if (child := os.fork()) == 0:
        try:
            solver.solve(QUESTION)
        except BackendError as error:
            solver.cancel()
            solver.close()
            said.write_text(str(error))
        finally:
            os._exit(0)
    begun = time.monotonic()
    os.waitpid(child, 0)
    assert time.monotonic() - begun < 5
    assert f"belongs to process {os.getpid()}" in said.read_text()
    assert solver.solve(QUESTION, "greedy").finished


def solve_there(pack: Pack, answers: multiprocessing.SimpleQueue[str | None]) -> None:
    with Solver(pack, profile="laptop-cpu", generations=2) as solver:
        answers.put(solver.solve(QUESTION, "greedy").answer)


def test_a_spawned_process_makes_its_own(pack: Pack, solver: Solver) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.SimpleQueue[str | None] = spawn.SimpleQueue()
    child = spawn.Process(target=solve_there, args=(pack, answers))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert answers.get() is not None


def test_a_solver_is_not_pickled(solver: Solver) -> None:
    with pytest.raises(TypeError, match="create one in each process"):
        pickle.dumps(solver)
