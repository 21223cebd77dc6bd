"""Two callers that use one solver at the same time, against two that use it one after the other.

    python -m edge_tts.bench.sharing --data tests/data/svamp_sample.jsonl --out records/sharing.json

Each caller asks a question of its own and draws eight samples; the engine runs sixteen sequences. The two ways take
turns in short trials, because the speed of a shared machine drifts from second to second. Each trial starts without the
prompts of the last one in the KV cache. The record also has what a bare ``llama_decode`` loop gains when its width is
doubled in the same way.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edge_tts.bench import machine
from edge_tts.bench.engine import wider_loop
from edge_tts.bench.intervals import quartiles
from edge_tts.core import Budget, Request, Sampling
from edge_tts.events import Result
from edge_tts.export import command
from edge_tts.packs.pack import find_pack, prepare_pack
from edge_tts.questions.reading import read_questions
from edge_tts.solver import Solver

CALLERS = 2
GENERATIONS = 8
BURSTS = 24
"""Bursts of the bare loop at each width."""
STRATEGIES = ("majority", "weighted", "auto")


@dataclass(frozen=True)
class Trial:
    """The same questions, answered at the same time and one after the other."""

    questions: tuple[str, ...]
    together_s: float
    apart_s: float
    together_tokens: int
    """Tokens of the text of all samples."""
    apart_tokens: int
    waits_s: tuple[float, ...]
    """Seconds that each caller waited when they came at the same time."""

    @property
    def ratio(self) -> float:
        """Tokens/s at the same time, over tokens/s one after the other."""
        return (self.together_tokens / self.together_s) / (self.apart_tokens / self.apart_s)


def measure(solver: Solver, questions: Sequence[str], strategy: str, trials: int) -> dict[str, Any]:
    """The ratio of throughputs (see :class:`Trial`) of ``CALLERS`` callers: in each trial, and over all of them."""
    done = []
    for number in range(-1, trials):  # the first warms up
        first = (number + 1) * CALLERS
        asked = tuple(questions[(first + i) % len(questions)] for i in range(CALLERS))
        trial = _trial(solver, asked, strategy, number)
        if number >= 0:
            done.append(trial)
    summed = ("together_s", "apart_s", "together_tokens", "apart_tokens")
    total = Trial(questions=(), waits_s=(), **{name: sum(getattr(t, name) for t in done) for name in summed})
    return {
        "strategy": strategy,
        "callers": CALLERS,
        "generations_each": GENERATIONS,
        "engine_width": solver.policy.width,
        "trials": trials,
        **quartiles([trial.ratio for trial in done]),
        "ratio_of_totals": round(total.ratio, 3),
        "together_tokens_per_second": round(total.together_tokens / total.together_s, 1),
        "each": [asdict(trial) | {"ratio": round(trial.ratio, 3)} for trial in done],
    }


def _trial(solver: Solver, questions: tuple[str, ...], strategy: str, number: int) -> Trial:
    """Answer ``questions`` in both ways, odd trials at the same time first.

    Each way has a seed of its own: of two equal steps the verifier would score only the first.
    """
    seconds: dict[bool, float] = {}
    results: dict[bool, list[Result]] = {}
    for together in (True, False) if number % 2 else (False, True):
        _forget_prompts(solver)
        ask = partial(
            solver.solve, strategy=strategy, budget=Budget(generations=GENERATIONS), seed=2 * number + together
        )
        begun = time.monotonic()
        with ThreadPoolExecutor(len(questions) if together else 1) as callers:
            results[together] = list(callers.map(ask, questions))
        seconds[together] = time.monotonic() - begun
    tokens = {way: sum(r.usage.generated_tokens for r in found) for way, found in results.items()}
    waits = tuple(r.usage.seconds for r in results[True])
    return Trial(questions, seconds[True], seconds[False], tokens[True], tokens[False], waits)


def _forget_prompts(solver: Solver) -> None:
    """Overwrite every stream of the KV cache."""
    policy = solver.policy
    texts = [f"{stream} is one of {policy.width} numbers that nobody asks about" for stream in range(policy.width)]
    list(policy.generate([Request(policy.tokenize(text), 0, Sampling(max_tokens=1)) for text in texts]))


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Trials of each strategy.")
@click.option("--strategies", default=",".join(STRATEGIES), show_default=True, help="Strategies, separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Record; it is replaced.")
def main(data: Path, trials: int, strategies: str, out: Path) -> None:
    """Measure what callers gain when they share a solver, and write a record."""
    console = Console(stderr=True)
    questions = [q.question for q in read_questions(data)]
    pack = prepare_pack(find_pack(None))
    bare = wider_loop(pack, GENERATIONS, CALLERS, BURSTS)
    console.print("bare loop", bare)
    record: dict[str, Any] = {"machine": machine.describe(), "bare_loop": bare, "sharing": []}
    with Solver(pack, generations=CALLERS * GENERATIONS, deadline_s=600) as solver:
        for strategy in strategies.split(","):
            found = measure(solver, questions, strategy, trials)
            console.print({name: value for name, value in found.items() if name != "each"})
            record["sharing"].append(found)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command.run(main))
