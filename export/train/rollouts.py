"""Sample a policy on training problems and label every step by Monte Carlo (:mod:`edge_tts.export.train.labels`).

Equation steps are short and repeat, so the samples of a question share prefixes; no further rollouts are drawn.

    python -m edge_tts.export.train.rollouts --policy policy.gguf --data gsm8k_train.jsonl \\
        --split train --problems 500 --samples 16 --out rollouts.jsonl

``--format program`` is for chat models that know code: they are asked as the runtime asks them, programs are run as
they are written, and one that fails is a row without an answer.

``--attempts rollouts.jsonl`` samples revisions instead: each follows one to four wrong attempts from that file,
programs together with what running them said. With ``--base BASE.gguf --tuned RUN/adapter`` instead of ``--policy``,
PyTorch samples, on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from edge_tts.answers.equivalence import is_correct
from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    Trace,
)
from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.trace_rows import read_rows
from edge_tts.export.train import programs
from edge_tts.export.train.data import Problem, read_problems, split
from edge_tts.export.train.examples import Samples, attempts, read_samples
from edge_tts.export.train.labels import prefix_values
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_format import AskedProgram
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT, CalculatorFormat, PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.search.driver import derived_seed, fitting_prompt

PROBLEMS_PER_CALL = 16


def sample(
    policy: Policy,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    seed: int,
    earlier: Samples | None = None,
) -> list[list[Trace]]:
    """``samples`` traces of each problem, drawn in one batch; with ``earlier``, revisions of its wrong attempts."""
    prompts, rng = PromptFormat(), random.Random(seed)
    traces = []
    for problem in problems:
        for _ in range(samples):
            before = attempts(problem, earlier, rng.randint(1, ATTEMPTS_IN_CONTEXT), rng) if earlier else []
            traces.append(Trace(policy.tokenize(prompts.render(problem.question, before), special=True)))
    writes = CalculatorFormat().written
    requests = [Request(t.tokens, derived_seed(seed, i), sampling, writes=writes) for i, t in enumerate(traces)]
    for event in policy.generate(requests):
        traces[event.request] = traces[event.request].extended(event, prompts.answer_marker)
    return [traces[i : i + samples] for i in range(0, len(traces), samples)]


def sample_programs(
    policy: Policy,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    seed: int,
    earlier: Samples | None = None,
) -> list[list[Trace]]:
    """``samples`` programs for each problem, drawn in one batch and run as they are written.

    With ``earlier``, revisions: each follows wrong programs of its problem.
    """
    rng, room = random.Random(seed), sampling.max_tokens
    chat = policy.chat_model
    template = ChatTemplate(chat.template, chat.bos, chat.eos, chat.adds_bos)
    with Interpreter() as interpreter:
        asked = [AskedProgram.of(template, (Message("user", problem.question),), interpreter) for problem in problems]
        wrong = [earlier.wrong[problem.id] if earlier else () for problem in problems]
        prompts = [
            fitting_prompt(one, policy, [one.run_again(each) for each in programs.attempts(known, rng)], room)
            for one, known in zip(asked, wrong, strict=True)
            for _ in range(samples)
        ]
        traces = [Trace(tokens, prompt_tokens=len(tokens)) for tokens in prompts]
        requests = [Request(t.tokens, derived_seed(seed, i), sampling) for i, t in enumerate(traces)]
        for event in policy.generate(requests):
            at = event.request
            if not traces[at].finished:
                traces[at] = asked[at // samples].extended(traces[at], event)
    return [traces[i : i + samples] for i in range(0, len(traces), samples)]


def label(problem: Problem, traces: Iterable[Trace], failed: bool = False) -> list[dict[str, Any]]:
    """Rows of steps with soft labels: the share of right answers among the samples that contain each prefix.

    With ``failed``, a sample without an answer is a row, too, and counts as wrong; one without a whole step has what
    it wrote in place of it.
    """
    if failed:
        kept = [t if t.steps else replace(t, steps=(t.text.strip() or programs.NOTHING,)) for t in traces]
    else:
        kept = [t for t in traces if t.steps and t.finished and t.answer is not None]
    answers = [t.answer if t.finished else None for t in kept]
    right = [answer is not None and is_correct(answer, problem.answer) for answer in answers]
    values = prefix_values([(t.steps, is_right) for t, is_right in zip(kept, right, strict=True)])
    return [
        {
            "id": problem.id,
            "question": problem.question,
            "steps": list(trace.steps),
            "labels": list(labels),
            "answer": answer,
            "correct": is_right,
            **({"logprob": round(trace.mean_logprob, 4)} if failed else {}),
        }
        for trace, answer, is_right, labels in zip(kept, answers, right, values, strict=True)
    ]


def collect(
    policy: Policy,
    problems: Sequence[Problem],
    samples: int,
    out: Path,
    sampling: Sampling,
    seed: int,
    earlier: Samples | None = None,
    as_programs: bool = False,
) -> None:
    """Append labelled rows to ``out``, skipping problems that are there already.

    With ``earlier`` the rows are revisions, and problems without wrong attempts are skipped. Raises InputError where
    no trace reached an answer.
    """
    done: set[str] = set()
    if out.exists():
        done = {json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()}
    todo = [p for p in problems if p.id not in done and (earlier is None or p.id in earlier.wrong)]
    together = max(PROBLEMS_PER_CALL, policy.width // samples)
    with Progress() as progress, out.open("a", encoding="utf-8") as sink:
        task = progress.add_task("sampling", total=len(todo))
        for start in range(0, len(todo), together):
            batch = todo[start : start + together]
            if as_programs:
                drawn = sample_programs(policy, batch, samples, sampling, seed + start, earlier)
            else:
                drawn = sample(policy, batch, samples, sampling, seed + start, earlier)
            for problem, traces in zip(batch, drawn, strict=True):
                for row in label(problem, traces, as_programs):
                    sink.write(json.dumps(row) + "\n")
                progress.advance(task)
            sink.flush()
    if todo and not out.stat().st_size:
        raise InputError(
            f"none of the {samples * len(todo)} traces reached an answer; train the policy for longer "
            "or check that it knows the format"
        )


def open_policy(policy: Path | None, base: Path, tuned: Path | None, width: int) -> Policy:
    """The policy as GGUF in llama.cpp or, without one, ``base`` with ``tuned`` in PyTorch."""
    if policy is not None:
        from edge_tts.runtimes.llama import LlamaPolicy

        return LlamaPolicy(policy, EngineConfig(width=width, context=1024))
    from edge_tts.export.train.torch_policy import TorchPolicy

    return TorchPolicy(base, tuned, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--policy", type=Path, help="policy as GGUF")
    source.add_argument("--base", type=Path, help="base policy as GGUF, for PyTorch")
    parser.add_argument("--tuned", type=Path, help="with --base: adapter or model folder of the fine-tuning")
    parser.add_argument("--attempts", type=Path, help="rollouts with the wrong attempts to revise")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--format", choices=("equations", "program"), default="equations")
    parser.add_argument("--max-tokens", type=int, default=200, help="of a trace")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train, held_out = split(read_problems(options.data))
    as_programs = options.format == "program"
    problems = train if options.split == "train" else held_out
    random.Random(options.seed).shuffle(problems)
    problems = problems[: options.problems]
    earlier = None
    if options.attempts and as_programs:
        earlier = Samples(wrong=programs.wrong_programs(read_rows(options.attempts, labelled=False)))
    elif options.attempts:
        earlier = read_samples([options.attempts], problems)
    policy = open_policy(options.policy, options.base, options.tuned, options.width)
    try:
        sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
        collect(policy, problems, options.samples, options.out, sampling, options.seed, earlier, as_programs)
    finally:
        policy.close()


if __name__ == "__main__":
    sys.exit(command.run(main))
