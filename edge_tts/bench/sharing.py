"""Two callers of one solver at the same time, against the same one after the other.

    python -m edge_tts.bench.sharing --data tests/data/svamp_sample.jsonl --out records/sharing.json

Each caller asks a question of its own and draws eight samples; the engine runs sixteen sequences. Both ways take
turns in short trials, since a shared machine's speed drifts from second to second, and no trial finds prompts of
an earlier one in the KV cache. Beside them, what a bare ``llama_decode`` loop gains by the same doubling of its width.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edge_tts.bench import machine
from edge_tts.bench.engine import wider_loop
from edge_tts.bench.intervals import quartiles
from edge_tts.core import Budget, Request, Result, Sampling
from edge_tts.packs.pack import find_pack, prepare_pack
from edge_tts.questions.reading import read_questions
from edge_tts.solver import Solver

CALLERS = 2
GENERATIONS = 8
BURSTS = 24
"""Of the bare loop."""
STRATEGIES = ("majority", "weighted", "auto")


@dataclass(frozen=True)
class Trial:
    """Some questions, answered together and one after the other."""

    questions: tuple[str, ...]
    together_s: float
    apart_s: float
    together_tokens: int
    """Of all samples' text."""
    apart_tokens: int
    waits_s: tuple[float, ...]
    """Until each answer, together."""

    @property
    def ratio(self) -> float:
        """Throughput in tokens/s, together against apart."""
        return (self.together_tokens / self.together_s) / (self.apart_tokens / self.apart_s)


def measure(solver: Solver, questions: Sequence[str], strategy: str, trials: int) -> dict[str, Any]:
    """Throughput of ``CALLERS`` callers at once over that of one after the other, trial by trial."""
    done = []
    for number in range(-1, trials):  # the first warms up
        first = (number + 1) * CALLERS
        asked = tuple(questions[(first + i) % len(questions)] for i in range(CALLERS))
        trial = _trial(solver, asked, strategy, number)
        if number >= 0:
            done.append(trial)
    return {
        "strategy": strategy,
        "callers": CALLERS,
        "generations_each": GENERATIONS,
        "engine_width": solver.policy.width,
        "trials": trials,
        **quartiles([trial.ratio for trial in done]),
        "ratio_of_totals": round(
            sum(t.together_tokens for t in done)
            / sum(t.together_s for t in done)
            * sum(t.apart_s for t in done)
            / sum(t.apart_tokens for t in done),
            3,
        ),
        "together_tokens_per_second": round(sum(t.together_tokens for t in done) / sum(t.together_s for t in done), 1),
        "each": [asdict(trial) | {"ratio": round(trial.ratio, 3)} for trial in done],
    }


def _trial(solver: Solver, questions: tuple[str, ...], strategy: str, number: int) -> Trial:
    """One trial; odd ones begin together. Both ways draw with seeds of their own: equal steps would be scored once."""
    ways = {True: _together, False: _apart}
    results: dict[bool, tuple[float, list[Result]]] = {}
    for together in (True, False) if number % 2 else (False, True):
        _forget_prompts(solver)
        begun = time.monotonic()
        answered = ways[together](solver, questions, strategy, 2 * number + together)
        results[together] = time.monotonic() - begun, answered
    tokens = {way: sum(r.usage.generated_tokens for r in found) for way, (_, found) in results.items()}
    return Trial(
        questions,
        results[True][0],
        results[False][0],
        tokens[True],
        tokens[False],
        tuple(r.usage.seconds for r in results[True][1]),
    )


def _apart(solver: Solver, questions: Sequence[str], strategy: str, seed: int) -> list[Result]:
    return [solver.solve(question, strategy, Budget(generations=GENERATIONS), seed) for question in questions]


def _together(solver: Solver, questions: Sequence[str], strategy: str, seed: int) -> list[Result]:
    results: list[Result] = []
    callers = [
        threading.Thread(target=lambda q=question: results.extend(_apart(solver, [q], strategy, seed)))
        for question in questions
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return results


def _forget_prompts(solver: Solver) -> None:
    """Overwrite every KV stream."""
    policy = solver.policy
    texts = [f"{stream} is one of {policy.width} numbers that nobody asks about" for stream in range(policy.width)]
    list(policy.generate([Request(policy.tokenize(text), 0, Sampling(max_tokens=1)) for text in texts]))


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="JSON lines with questions.")
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True)
@click.option("--strategies", default=",".join(STRATEGIES), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, trials: int, strategies: str, out: Path) -> None:
    """Measure what callers gain by sharing a solver, and write a record."""
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
    main()
