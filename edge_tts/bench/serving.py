"""The server under load, and the time that it adds to the library's.

    python -m edge_tts.bench.serving --minutes 30 --data tests/data/svamp_sample.jsonl --out records/serving.json
    python -m edge_tts.bench.serving --model qwen2.5-coder-1.5b --only load --data FILE --out FILE

The server is a process of its own. The time it adds is that of HTTP, JSON, and handing over to the search's thread and
back.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import numpy as np
from rich.console import Console

from edge_tts.bench import machine
from edge_tts.bench.intervals import mean_interval
from edge_tts.bench.load import STRATEGIES as LOADS
from edge_tts.bench.load import VERIFIED, mixed_load
from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.core import Budget
from edge_tts.errors import BackendError
from edge_tts.export import command
from edge_tts.packs.pack import DEFAULT
from edge_tts.questions.reading import read_questions
from edge_tts.solver import Solver

STRATEGIES = ("greedy", "majority:n=4", "weighted:n=4")
"""Those that are compared with the library: short ones, whose time varies least."""
STARTS = 20
"""How often server and library are started for the comparison; an even number."""
PAIRS = 30
"""Requests, and as many calls of the library, after each start; a multiple of twice the number of strategies."""
MEASUREMENTS = ("overhead", "first_event_ms", "load", "stopping")
IDLE_SECONDS = 30.0
"""Longest wait, after a load, until nothing runs or waits any more."""


def overhead(questions: Sequence[str], isolate: bool) -> dict[str, Any]:
    """Milliseconds that a request takes longer than a call of the library, and longer than its own search.

    Server and library answer the same questions in turns, with the same strategies and seeds. Two processes of one
    program differ by more than what is measured here, and the one that loads its models first tends to be slower. So
    both are started ``STARTS`` times, each of them first every other time, and the interval is a bootstrap over pairs
    of starts.
    """
    longer, outside = [], []
    for start in range(STARTS):
        with ExitStack() as stack:
            if start % 2:
                solver = stack.enter_context(Solver(DEFAULT, isolate=isolate))
            server = stack.enter_context(running_server(*_options(isolate)))
            if not start % 2:
                solver = stack.enter_context(Solver(DEFAULT, isolate=isolate))
            pairs = [_pair(server, solver, questions, start * PAIRS + i) for i in range(PAIRS)]
        longer.append(statistics.median(served - called for called, served, _ in pairs))
        outside += [served - searched for _, served, searched in pairs]
    mean = mean_interval(np.reshape(longer, (-1, 2)).mean(axis=1))
    return {
        "starts": STARTS,
        "requests": STARTS * PAIRS,
        "over_library_ms": {
            "mean_of_medians": round(mean.value, 2),
            "low": round(mean.low, 2),
            "high": round(mean.high, 2),
            "medians": [round(value, 2) for value in longer],
        },
        "outside_the_search_ms": {
            "median": round(statistics.median(outside), 2),
            "worst": round(max(outside), 2),
        },
    }


def _pair(server: ServerProcess, solver: Solver, questions: Sequence[str], number: int) -> tuple[float, float, float]:
    """Milliseconds of a call of the library, of the same request, and of the request's search.

    The client is http.client, which adds the least time of its own.
    """
    strategy, seconds = STRATEGIES[number % len(STRATEGIES)], {}
    question = questions[number // len(STRATEGIES) % len(questions)]
    for side in ("library", "server") if number % 2 else ("server", "library"):
        with closing(HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as http:
            http.connect()
            began = time.monotonic()
            if side == "library":
                solver.solve(question, strategy, Budget(), number)
            else:
                answer = _post(http, _body(solver, question, number, edge={"strategy": strategy}))
            seconds[side] = 1000 * (time.monotonic() - began)
    return seconds["library"], seconds["server"], 1000 * answer["edge"]["usage"]["seconds"]


def _options(isolate: bool, model: str | None = None) -> list[str]:
    return [*(["--model", model] if model else ["--pack", DEFAULT]), *(["--isolate"] if isolate else [])]


def first_event(server: ServerProcess, solver: Solver, questions: Sequence[str]) -> dict[str, float]:
    """Milliseconds from sending a question that the server has not seen to the first event of its search."""
    times = []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for question in questions:
            body = _body(solver, question, 0, stream=True, edge={"events": True})
            began = time.monotonic()
            with http.stream("POST", "/v1/chat/completions", json=body) as response:
                next(line for line in response.iter_lines() if '"event"' in line)
                times.append(1000 * (time.monotonic() - began))
            server.wait_until_idle(IDLE_SECONDS)
    return {"requests": len(times), "median": round(statistics.median(times), 1), "worst": round(max(times), 1)}


def under_load(server: ServerProcess, solver: Solver, questions: Sequence[str], minutes: float) -> dict[str, Any]:
    """Statuses, latencies and memory under a mixed load, and whether anything was left running or open after it."""
    before = server.handles()
    strategies = [*LOADS, *(VERIFIED if solver.pack.verifier else ())]
    longest = solver.plan.deadline_s
    tally = asyncio.run(mixed_load(server, solver.pack.name, strategies, questions, longest, 60 * minutes, seed=0))
    idle = server.wait_until_idle(IDLE_SECONDS)
    time.sleep(6)  # connections kept alive are closed after five seconds
    return {
        "minutes": minutes,
        **tally.summary(),
        "all_slots_free_again": idle,
        "handles": {"before": before, "after": server.handles()},
        "lost_events": server.metric("lost_events_total"),
    }


def stopping(server: ServerProcess, solver: Solver, question: str) -> dict[str, Any]:
    """How a server ends when it is told to stop in the middle of a search."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        body = _body(solver, question, 0, stream=True, edge={"strategy": "majority:n=1024", "events": True})
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(line for line in lines if '"event"' in line)
            began = time.monotonic()
            server.process.terminate()
            rest = list(lines)
    code = server.process.wait(30)
    return {
        "seconds": round(time.monotonic() - began, 2),
        "exit_code": code,
        "answered": any('"stop_reason":"cancelled"' in line for line in rest),
        "log": server.log.read_text("utf-8").splitlines()[-1],
    }


def _body(solver: Solver, question: str, seed: int, **fields: Any) -> dict[str, Any]:
    return {"model": solver.pack.name, "messages": [{"role": "user", "content": question}], "seed": seed, **fields}


def _post(http: HTTPConnection, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``body``. Raises BackendError where it is refused."""
    http.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = http.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        raise BackendError(f"the server answered {response.status}: {answer}")
    return answer


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Length of the load.")
@click.option(
    "--first", type=click.IntRange(1), default=10, show_default=True, help="Questions of every other measurement."
)
@click.option("--only", default=",".join(MEASUREMENTS), show_default=True, help="Measurements, separated by commas.")
@click.option("--model", help="Of the other measurements than overhead; the built-in pack otherwise.")
@click.option("--isolate", is_flag=True, help="Run the models in a process of their own.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Record; what is not measured stays.")
def main(data: Path, minutes: float, first: int, only: str, model: str | None, isolate: bool, out: Path) -> None:
    """Measure the server and write a record."""
    console = Console(stderr=True)
    questions = [question.question for question in read_questions(data)]
    if len(questions) < 2 * first:
        raise click.UsageError(
            f"{data} has {len(questions)} questions, but --first {first} needs {2 * first}; lower it"
        )
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    wanted = only.split(",")
    if unknown := sorted(set(wanted) - set(MEASUREMENTS)):
        raise click.UsageError(f"--only names {unknown[0]!r}; choose among {', '.join(MEASUREMENTS)}")

    def keep(name: str, measured: dict[str, Any]) -> None:
        record[name] = {"machine": machine.describe(), "model": model or DEFAULT, "isolate": isolate, **measured}
        console.print(name, measured)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    if "overhead" in wanted:
        keep("overhead", overhead(questions[:first], isolate))
    if wanted == ["overhead"]:
        return
    chosen: dict[str, Any] = {"model": model} if model else {"pack": DEFAULT}
    with running_server(*_options(isolate, model)) as server, Solver(**chosen, isolate=isolate) as solver:
        if "first_event_ms" in wanted:
            keep("first_event_ms", first_event(server, solver, questions[first : 2 * first]))
        if "load" in wanted:
            keep("load", under_load(server, solver, questions, minutes))
        if "stopping" in wanted:
            keep("stopping", stopping(server, solver, questions[0]))


if __name__ == "__main__":
    sys.exit(command.run(main))
