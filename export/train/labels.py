"""Labels of steps by Monte Carlo, from samples that are there already.

A step's label is the share of right answers among the samples that begin with it (Snell et al. 2024, appendix D;
Math-Shepherd, Wang et al. 2024). Each sample is a rollout of every prefix it contains. Where no two samples begin
alike, the label is one sample's outcome: a single draw, whose expectation is the value of the prefix, so training on
many of them with cross-entropy fits that value.

The samples of studies (``bench run`` with majority among its strategies) become rows for :mod:`train_prm` and
:mod:`fit_prm`; a policy is named after the study's folder, and its own continuations make its labels:

    python -m edge_tts.export.train.labels --problems gsm8k_train.jsonl --samples STUDY/samples.jsonl --out rows.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.trace_rows import Row
from edge_tts.export.train.data import read_problems
from edge_tts.files.json_lines import read_lines

Steps = tuple[str, ...]


def prefix_values(samples: Sequence[tuple[Steps, bool]]) -> list[tuple[float, ...]]:
    """For every step of every sample (its steps, and whether it is right) of one question and policy, its label."""
    through: dict[Steps, list[bool]] = defaultdict(list)
    for steps, right in samples:
        for length in range(1, len(steps) + 1):
            through[steps[:length]].append(right)
    share = {prefix: round(sum(found) / len(found), 4) for prefix, found in through.items()}
    return [tuple(share[steps[:length]] for length in range(1, len(steps) + 1)) for steps, _ in samples]


class _Part(msgspec.Struct):
    tokens: int
    logprob: float


class _Sample(msgspec.Struct):
    steps: Steps
    answer: str | None
    correct: bool
    parts: list[_Part]


class _Pool(msgspec.Struct):
    """A line of a study's ``samples.jsonl``: all samples of a problem. Other keys are not looked at."""

    id: str
    samples: list[_Sample]


def study_rows(path: Path, questions: Mapping[str, str]) -> list[Row]:
    """The samples in a study's ``samples.jsonl`` (or ``.gz``) as rows; ``questions`` are the problems' texts by id.

    A program that ends in an error is a row without an answer, and counts as wrong. Raises InputError for a file
    without samples and for a line that is none.
    """
    found: list[Row] = []
    for number, line in read_lines(path):
        try:
            pool = msgspec.convert(line, _Pool)
            question = questions[pool.id]
        except (msgspec.ValidationError, KeyError) as error:
            raise InputError(
                f"{path}, line {number}: no samples of a known problem ({error}); give its problems"
            ) from None
        samples = [sample for sample in pool.samples if sample.steps]
        values = prefix_values([(sample.steps, sample.correct) for sample in samples])
        for sample, labels in zip(samples, values, strict=True):
            tokens = sum(part.tokens for part in sample.parts)
            logprob = sum(part.logprob for part in sample.parts) / max(1, tokens)
            answered = sample.answer, sample.correct, round(logprob, 4), path.absolute().parent.name
            found.append(Row(pool.id, question, sample.steps, labels, *answered))
    if not found:
        raise InputError(f"{path} has no samples; run `bench run` with majority among its strategies")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, help="JSON lines: id, question, answer")
    parser.add_argument("--samples", type=Path, action="append", required=True, help="samples.jsonl or .gz of a study")
    parser.add_argument("--out", type=Path, required=True, help="rows to write, JSON lines")
    options = parser.parse_args()
    questions = {problem.id: problem.question for problem in read_problems(options.problems)}
    rows = [row for path in options.samples for row in study_rows(path, questions)]
    options.out.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    print(f"{len(rows)} traces of {len({row.id for row in rows})} problems")


if __name__ == "__main__":
    sys.exit(command.run(main))
