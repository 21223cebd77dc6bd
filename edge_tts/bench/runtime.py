"""The runtime's own speed, deadlines and memory, as ratios measured side by side in one run.

python -m edge_tts.bench.runtime --data FILE --out records/runtime.json
python -m edge_tts.bench.runtime --model NAME_OR_GGUF --only engine,first-token --data FILE --out records/engine.json
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from edge_tts.bench import machine
from edge_tts.bench.engine import QUESTION, against_bare_loop, first_token, sound_kernels
from edge_tts.bench.load import allowed_s
from edge_tts.core import Budget, Request
from edge_tts.packs.bare_model import find_model
from edge_tts.packs.pack import DEFAULT, Pack, find_pack, prepare_pack
from edge_tts.questions.reading import read_questions
from edge_tts.runtimes import device
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
from edge_tts.solver import Solver

CAPS_MB = (300, 400, 512, 768, 1024, 2048)
CHAT_CAPS_MB = (800, 1000, 1500, 2000, 3000, 4000)
"""For models of half a billion parameters and more."""
DEADLINES_S = (0.25, 2.5)
"""Least and largest of the deadlines."""
STRATEGIES = ("beam", "weighted", "revise", "majority")
HIGH_LEVEL_QUESTIONS = 8
LONG_QUESTION = (
    "A school is getting ready for its summer fair. The 4 oldest classes bake 36 muffins each, and the 5 youngest "
    "classes bake 24 muffins each. Before the fair opens, the teachers eat 18 of the muffins and put 30 aside for the "
    "choir. The rest is packed into boxes of 6, and every box is sold for 7 dollars. In the afternoon 9 of the boxes "
    "are still unsold and are given to the neighbours. How many dollars does the school take for its muffins that day?"
)
"""About as long as the questions a plan makes room for."""
CLI = (sys.executable, "-P", "-m", "edge_tts")


def _alone(work: Callable[..., float], *arguments: Any) -> float:
    """Run ``work`` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def against_high_level(pack: Pack, questions: Sequence[str]) -> dict[str, Any]:
    """Sixteen samples of a question: one batch against sixteen calls of ``llama_cpp.Llama``, question by question.

    That class takes half the cores by default; it is measured with that and with as many threads as ours.
    """
    ratios: dict[str, list[float]] = {"default_threads": [], "same_threads": []}
    for question in questions:
        rendered = pack.prompts.render(question)
        ours = _alone(_one_batch, pack, rendered)
        for name, threads in (("default_threads", None), ("same_threads", device.threads(None))):
            ratios[name].append(ours / _alone(_sixteen_calls, pack, rendered, threads))
    return {
        name: {"ratios": [round(r, 3) for r in found], "median_ratio": round(statistics.median(found), 3)}
        for name, found in ratios.items()
    }


def _one_batch(pack: Pack, prompt: str) -> float:
    """Seconds of sixteen samples in one batch."""
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=16, context=512))
    tokens = policy.tokenize(prompt, special=True)
    begun = time.monotonic()
    list(policy.generate([Request(tokens, seed, pack.sampling) for seed in range(16)]))
    seconds = time.monotonic() - begun
    policy.close()
    return seconds


def _sixteen_calls(pack: Pack, prompt: str, threads: int | None) -> float:
    """Seconds of sixteen completions one after the other; the class keeps the prompt's KV cache between them."""
    from llama_cpp import Llama

    with sound_kernels():
        model = Llama(str(pack.policy_path), n_ctx=512, verbose=False, n_gpu_layers=0, n_threads=threads)
    begun = time.monotonic()
    for seed in range(16):
        model.create_completion(
            prompt,
            max_tokens=pack.sampling.max_tokens,
            temperature=pack.sampling.temperature,
            top_k=pack.sampling.top_k,
            top_p=1.0,
            min_p=0.0,
            repeat_penalty=1.0,
            seed=seed,
        )
    seconds = time.monotonic() - begun
    model.close()
    return seconds


def beam_overhead(solver: Solver, questions: Sequence[str]) -> dict[str, Any]:
    """Share of a 16-wide beam's wall time that is not spent decoding and sampling."""
    policy = solver.policy
    assert isinstance(policy, LlamaPolicy)
    shares, verifier = [], []
    for question in questions:
        busy, begun = policy.busy_seconds, time.monotonic()
        result = solver.solve(question, "beam", Budget(generations=16))
        wall = time.monotonic() - begun
        shares.append(1 - (policy.busy_seconds - busy) / wall)
        verifier.append(result.usage.verifier_seconds / wall)
    return {
        "questions": len(questions),
        "mean_share": round(statistics.mean(shares), 4),
        "median_share": round(statistics.median(shares), 4),
        "mean_verifier_share": round(statistics.mean(verifier), 4),
    }


def deadlines(solver: Solver, questions: Sequence[str], solves: int) -> dict[str, Any]:
    """Overshoot of random deadlines, evenly spread on a log scale."""
    kinds = ("weighted", "beam", "revise", "majority") if solver.verifier else ("auto", "revise", "majority", "greedy")
    least, largest = DEADLINES_S
    rows: list[dict[str, Any]] = []
    draw = random.Random(0)
    for i in range(solves):
        deadline = least * (largest / least) ** draw.random()
        begun = time.monotonic()
        result = solver.solve(
            questions[i % len(questions)],
            kinds[i % len(kinds)],
            Budget(generations=512, seconds=deadline),
            seed=i,
        )
        over = time.monotonic() - begun - deadline
        rows.append(
            {
                "deadline": deadline,
                "over": over,
                "answered": result.finished,
                "stop_reason": result.stop_reason,
            }
        )
    shares = [r["over"] / allowed_s(r["deadline"]) for r in rows]
    return {
        "solves": solves,
        "model": solver.pack.name,
        "deadlines_s": DEADLINES_S,
        "hit_the_deadline": sum(r["stop_reason"] == "deadline" for r in rows),
        "answered": sum(r["answered"] for r in rows),
        "largest_overshoot_ms": round(1000 * max(r["over"] for r in rows), 1),
        "p99_share_of_allowance": round(float(np.quantile(shares, 0.99, method="higher")), 3),
        "allowance": "5% of the deadline + 50 ms",
    }


def memory(model: str | None) -> list[dict[str, Any]]:
    """Planned and measured peak of a fresh process at each cap, with as many as 64 generations."""
    chosen = ["--model", model] if model else ["--pack", DEFAULT]
    caps, strategies = (CHAT_CAPS_MB, ("majority",)) if model else (CAPS_MB, STRATEGIES)
    rows = []
    for cap, strategy in product(caps, strategies):
        arguments = [*chosen, "--memory", str(cap), "--budget", "64", "--strategy", strategy, "--json"]
        plan = _command(["plan", *arguments])
        if plan.returncode:
            rows.append({"cap_mb": cap, "strategy": strategy, "refused": plan.stderr.strip()})
            continue
        planned = json.loads(plan.stdout)["memory"]["total_mb"]
        run = _command(["solve", *arguments, "--deadline", "120", LONG_QUESTION])
        peak = json.loads(run.stdout)["usage"]["peak_memory_mb"]
        rows.append(
            {
                "cap_mb": cap,
                "strategy": strategy,
                "planned_mb": planned,
                "peak_mb": round(peak, 1),
                "peak_over_plan": round(peak / planned, 3),
            }
        )
    return rows


def startup(repeats: int) -> dict[str, Any]:
    """Seconds from process start to the first step on the error stream, pack warm."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.monotonic()
        with subprocess.Popen(
            [*CLI, "solve", "-v", "--seed", "1", QUESTION], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "[0]" in line or "] " in line:
                    break
            seconds.append(time.monotonic() - begun)
            process.kill()
    return {
        "runs": repeats,
        "median_seconds": round(statistics.median(seconds[1:]), 3),
        "worst": round(max(seconds[1:]), 3),
    }


def _command(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False)


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--bursts", type=int, default=24, show_default=True, help="Pairs of bursts of each width of the engine.")
@click.option("--widths", default="8,16,32", show_default=True, help="Widths of the engine.")
@click.option("--solves", type=int, default=100, show_default=True, help="Solves of the deadline test.")
@click.option("--model", help="Measure this model in place of the built-in pack: a GGUF or a catalogue name.")
@click.option("--only", default="engine,first-token,high-level,beam,deadline,memory,startup", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    data: Path, repeats: int, bursts: int, widths: str, solves: int, model: str | None, only: str, out: Path
) -> None:
    """Measure the runtime and write a record."""
    console = Console(stderr=True)
    pack = prepare_pack(find_model(model) if model else find_pack(None))
    questions = [q.question for q in read_questions(data)]
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    record["machine"] = machine.describe()

    def measure(name: str, work: Callable[[], Any]) -> None:
        if name in only.split(","):
            record[name] = work()
            console.print(name, record[name])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    measure("startup", lambda: startup(repeats))
    measure("engine", lambda: [against_bare_loop(pack, int(width), bursts) for width in widths.split(",")])
    measure("first-token", lambda: first_token(pack, 16, repeats))
    measure("high-level", lambda: against_high_level(pack, questions[:HIGH_LEVEL_QUESTIONS]))
    measure("memory", lambda: memory(model))
    if {"beam", "deadline"} & set(only.split(",")):
        with Solver(pack, generations=16) as solver:
            measure("beam", lambda: beam_overhead(solver, questions[:20]))
            measure("deadline", lambda: deadlines(solver, questions, solves))


if __name__ == "__main__":
    main()
