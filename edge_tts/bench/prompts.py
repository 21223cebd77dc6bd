"""Compares prompts of the formats for computations.

``python -m edge_tts.bench.prompts --model NAME --data FILE --out FILE``. Every prompt gets the same problems
and seeds. The record has the rights of each problem, so that prompts can be compared pair by pair.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from edge_tts.bench import datasets, machine
from edge_tts.bench.intervals import mean_interval
from edge_tts.bench.pool import Pool, draw
from edge_tts.bench.runtime_settings import RuntimeSettings
from edge_tts.core import Trace
from edge_tts.profiles.loader import detect
from edge_tts.questions.reading import Question
from edge_tts.reasoning.formats import Asked, AskedText
from edge_tts.reasoning.program_format import AskedProgram
from edge_tts.reasoning.program_prompt import BOOK, INSTRUCTION, PROMPT, ROLLS, ProgramPrompt
from edge_tts.reasoning.text_prompt import EXAMPLES, Examples
from edge_tts.search.concurrency import together
from edge_tts.search.selection import majority
from edge_tts.solver import Solver

COMMENTED = ProgramPrompt(
    "Solve the problem with a short Python program. Write only code. Before each line, a comment says in words what is "
    "known or what follows. One assignment a line, with names that say what the values are. The last line assigns the "
    "result to `answer`.",
    (
        (
            ROLLS,
            "# 4 trays with 15 rolls each are baked.\n"
            "rolls_baked = 4 * 15\n"
            "# 38 rolls are sold in the morning.\n"
            "rolls_after_morning = rolls_baked - 38\n"
            "# Half of the rest is sold in the afternoon.\n"
            "rolls_sold_afternoon = rolls_after_morning / 2\n"
            "# What is left is the rest without the rolls sold in the afternoon.\n"
            "answer = rolls_after_morning - rolls_sold_afternoon\n",
        ),
        (
            BOOK,
            "# Mia pays 24 dollars, which is the full price less 20%.\n"
            "price_paid_by_mia = 24\n"
            "discount_rate = 20 / 100\n"
            "# The full price less the discount is what Mia pays.\n"
            "full_price = price_paid_by_mia / (1 - discount_rate)\n"
            "# Her brother pays the full price, and both together pay the sum.\n"
            "answer = price_paid_by_mia + full_price\n",
        ),
    ),
)
_MORE = (
    (
        "A train leaves at 9 with 120 passengers. At each of 3 stops 14 people get on and twice as many get off. How "
        "many passengers are on it then?",
        "passengers = 120\n"
        "got_on_per_stop = 14\n"
        "got_off_per_stop = 2 * got_on_per_stop\n"
        "change_per_stop = got_on_per_stop - got_off_per_stop\n"
        "answer = passengers + 3 * change_per_stop\n",
    ),
    (
        "Ann is 6 years older than Ben, and Carl is a third as old as Ann. Ben is 18. How old will Carl be in 5 years?",
        "age_ben = 18\nage_ann = age_ben + 6\nage_carl = age_ann / 3\nanswer = age_carl + 5\n",
    ),
)
PROMPTS = {
    "names": PROMPT,
    "no examples": ProgramPrompt(INSTRUCTION, ()),
    "four examples": ProgramPrompt(INSTRUCTION, (*PROMPT.examples, *_MORE)),
    "comments": COMMENTED,
}
WORDS: dict[str, Examples] = {"words": EXAMPLES, "words, no examples": ()}
"""Examples of reasoning in words."""


@dataclass(frozen=True)
class Outcome:
    """What one prompt brought."""

    prompt: str
    single: float
    """Percent of samples that are right, with an interval of 95% over problems."""
    single_interval: tuple[float, float]
    majority: float
    without_value: float
    """Percent of samples that end without an answer."""
    prompt_tokens: float
    new_tokens: float
    """Of a sample, on average."""
    seconds: float
    right: dict[str, int]
    """Right samples of each problem."""
    voted: tuple[str, ...]
    """Problems whose vote is right."""
    errors: dict[str, int]
    """The commonest reasons for no answer."""


def prompted(solver: Solver, name: str, problem: Question) -> Asked:
    """``problem`` with the prompt that has that name."""
    if name in WORDS:
        in_words = solver.asked(problem.question, "math", "text")
        assert isinstance(in_words, AskedText)
        return replace(in_words, examples=WORDS[name])
    asked = solver.asked(problem.question, "math", "program")
    assert isinstance(asked, AskedProgram)
    return replace(asked, asks=PROMPTS[name])


def measure(solver: Solver, name: str, problems: tuple[Question, ...], samples: int) -> Outcome:
    """Draw ``samples`` solutions of every problem with the prompt ``name``."""
    errors: Counter[str] = Counter()

    def work(problem: Question, stopped: object) -> Pool | None:
        return draw(solver, problem, samples, 0, False, lambda: False, prompted(solver, name, problem))

    began = time.monotonic()
    pools = {pool.id: pool for pool in together(problems, work, 4)}
    seconds = time.monotonic() - began
    right, voted = {}, []
    for problem in problems:
        pool = pools[problem.id]
        right[problem.id] = sum(sample.correct for sample in pool.samples)
        traces = [Trace((), sample.steps, True, sample.answer) for sample in pool.samples]
        best = majority(traces).best
        if best is not None and any(s.correct for s in pool.samples if s.answer == best.answer):
            voted.append(problem.id)
        errors.update(sample.error.splitlines()[-1][:60] for sample in pool.samples if sample.error)
    drawn = [sample for pool in pools.values() for sample in pool.samples]
    mean = mean_interval([100 * right[problem.id] / samples for problem in problems])
    return Outcome(
        prompt=name,
        single=round(mean.value, 1),
        single_interval=(round(mean.low, 1), round(mean.high, 1)),
        majority=round(100 * len(voted) / len(problems), 1),
        without_value=round(100 * sum(sample.answer is None for sample in drawn) / len(drawn), 1),
        prompt_tokens=round(sum(len(pool.prompt) for pool in pools.values()) / len(pools), 1),
        new_tokens=round(sum(len(sample.tokens) for sample in drawn) / len(drawn), 1),
        seconds=round(seconds, 1),
        right=right,
        voted=tuple(voted),
        errors=dict(errors.most_common(8)),
    )


@click.command()
@click.option("--model", required=True, help="GGUF file, catalogue name, or owner/repo[:file].")
@click.option("--data", required=True, help="JSON lines with answers; training problems.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Problems to leave out at the beginning.")
@click.option("--first", type=click.IntRange(1), default=60, show_default=True)
@click.option("--samples", type=click.IntRange(1), default=4, show_default=True)
@click.option("--prompt", "prompts", multiple=True, type=click.Choice([*PROMPTS, *WORDS]), help="Repeatable; all.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="JSON file; earlier results stay.")
def command(model: str, data: str, skip: int, first: int, samples: int, prompts: tuple[str, ...], out: Path) -> None:
    """Measure the prompts and add their results to OUT."""
    problems = datasets.load(data, False).problems[skip : skip + first]
    settings = RuntimeSettings(
        None, detect()[0], None, generations=32, prompt_tokens=800, calculator=True, verifier=False, model=model
    )
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    with settings.open() as solver:
        for name in prompts or (*PROMPTS, *WORDS):
            result = measure(solver, name, problems, samples)
            made = {"model": solver.pack.title, "made_on": machine.describe(), "problems": len(problems)}
            record.append({**made, "samples": samples, "seed": 0, **asdict(result)})
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            click.echo(
                f"{name}: single {result.single}% {result.single_interval}, majority {result.majority}%, "
                f"{result.without_value}% without a value, {result.new_tokens} tokens, {result.seconds} s"
            )
            click.echo(json.dumps(result.errors))


if __name__ == "__main__":
    command()
