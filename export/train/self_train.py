"""Self-training of a chat model on its own programs that were right (STaR, Zelikman et al. 2022; ReST-EM, Singh et al.
2024).

The rows are those of :mod:`edge_tts.export.train.rollouts` with ``--format program``, or of a study
(:mod:`edge_tts.export.train.labels`). A change of low rank is trained on distinct right programs, a few of each
problem, so that easy problems do not crowd out hard ones; the loss counts what the model writes, not the prompt.
The prompt is the runtime's own. With ``--revision-share``, some follow wrong programs of the same problem and what
running those said, as where the runtime has a program revised (Snell et al. 2024, section 6.1). The same command goes
on where it was cut:

    python -m edge_tts.export.train.self_train --base MODEL.gguf --data rows.jsonl --out RUN --minutes 30

Whether it gains is for new problems to say: sample both with ``train.rollouts --split validation`` (``--base`` alone,
and with ``--tuned RUN/adapter``), and compare the files with ``python -m edge_tts.bench.compare_policies``.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_tts.export import command
from edge_tts.export.trace_rows import read_rows
from edge_tts.export.train.batches import bucketed
from edge_tts.export.train.policy_tokenizer import PolicyVocabulary
from edge_tts.export.train.programs import attempts, right_programs, wrong_programs
from edge_tts.export.train.sft import Example, TrainConfig, fit, load_base, trainable
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_format import FENCE, AskedProgram


@dataclass(frozen=True)
class SelfTrainConfig(TrainConfig):
    """Hyper-parameters of one round."""

    learning_rate: float = 2e-4
    rank: int = 16
    alpha: int = 32
    first_layer: int = 0
    batch_tokens: int = 4096
    most: int = 4
    """Programs taken of a problem."""
    revision_share: float = 0.0
    """Share of the programs, in [0, 1], that follow wrong ones of their problem, where it has any."""


def encode(
    question: str,
    program: str,
    template: ChatTemplate,
    tokenizer: Any,
    interpreter: Interpreter,
    wrong: Sequence[str] = (),
) -> Example:
    """A question as the runtime asks it, after ``wrong`` programs and what running them says, and the program up to
    the end of the turn."""
    vocabulary = PolicyVocabulary(tokenizer)
    asked = AskedProgram.of(template, (Message("user", question),), interpreter)
    prompt = asked.prompt(vocabulary, [asked.run_again(attempt) for attempt in wrong])
    target = [*vocabulary.tokenize(f"{program}\n{FENCE}"), tokenizer.eos_token_id]
    return Example(list(prompt), target, [1.0] * len(target))


def epochs(examples: Sequence[Example], config: SelfTrainConfig) -> Iterator[list[Example]]:
    """Yield batches for ever: each epoch shuffled, bucketed by length."""
    rng = random.Random(config.seed)
    while True:
        shuffled, bucket = rng.sample(examples, len(examples)), 40 * config.batch_size
        yield from bucketed(shuffled, bucket, lambda e: e.tokens, rng, config.batch_tokens, config.batch_size)


def train(base: Path, data: Path, out: Path, config: SelfTrainConfig) -> None:
    """Run or resume one round in ``out``, which gets ``adapter`` (PEFT) and ``log.jsonl``.

    Raises InputError where ``data`` has no right program, PackError where ``base`` is damaged.
    """
    rows, rng = read_rows(data, labelled=False), random.Random(config.seed)
    programs, known = right_programs(rows, config.most, config.seed), wrong_programs(rows)
    model, tokenizer = load_base(base)
    template = ChatTemplate(tokenizer.chat_template)
    examples: list[Example] = []
    revisions = 0
    with Interpreter() as interpreter:
        for row, program in programs:
            revised = row.id in known and rng.random() < config.revision_share
            wrong = attempts(known[row.id], rng, program) if revised else []
            examples.append(encode(row.question, program, template, tokenizer, interpreter, wrong))
            revisions += revised
    problems = len({row.question for row, _ in programs})
    print(f"{len(examples)} right programs of {problems} problems, {revisions} of them after wrong ones", flush=True)
    fit(trainable(model, config, None), tokenizer, epochs(examples, config), out, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="chat model as GGUF (Llama or Qwen2)")
    parser.add_argument("--data", type=Path, required=True, help="rows of programs with `correct`, JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    for name, default in asdict(SelfTrainConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    base, data, out = (options.pop(name) for name in ("base", "data", "out"))
    train(base, data, out, SelfTrainConfig(**options))


if __name__ == "__main__":
    sys.exit(command.run(main))
