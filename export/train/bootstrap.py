"""PRM training rows without a policy: right solutions, and solutions with one planted slip.

A stand-in for rollouts, for a first verifier where sampling the policy is too slow or the policy
too weak to give right answers: steps before the slip are labelled right, those from it on wrong.

    python -m edge_tts.export.train.bootstrap --data gsm8k_train.jsonl --problems 1200 --out rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_tts.export import command
from edge_tts.export.train.data import Problem, corrupt, read_problems, split

RIGHT_SHARE = 0.4
RIGHT, WRONG = 0.9, 0.1


def rows(problem: Problem, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """``count`` labelled traces of ``problem``, in the format of the rollouts recipe."""
    for _ in range(count):
        right = rng.random() < RIGHT_SHARE
        steps = problem.steps if right else corrupt(problem.steps, problem.question, rng)
        labels: list[float] = []
        for index, step in enumerate(steps):
            same = index < len(problem.steps) and step == problem.steps[index]
            labels.append(RIGHT if same and WRONG not in labels else WRONG)
        answer = steps[-1].rpartition("=")[2]
        correct = answer == problem.answer
        yield {
            "id": problem.id,
            "question": problem.question,
            "steps": [*steps, f"#### {answer}"],
            "labels": [*labels, float(correct)],
            "answer": answer,
            "correct": correct,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--problems", type=int, default=1200)
    parser.add_argument("--traces", type=int, default=6, help="of each problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    train, _ = split(read_problems(options.data))
    with options.out.open("w", encoding="utf-8") as sink:
        for problem in rng.sample(train, min(options.problems, len(train))):
            for row in rows(problem, options.traces, rng):
                sink.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(command.run(main))
