"""One round of self-training and a process reward model for a chat model, in one command that can be run again.

    python -m edge_tts.export.train.chat_pipeline --base MODEL.gguf --data gsm8k_train.jsonl --out RUN

1. ``rows``: sample programs for the training problems, run them as they are written, label them.
2. ``self-train``: train a change of low rank on the right ones, and write it as ``adapter.gguf`` for llama.cpp.
3. ``before`` and ``after``: sample validation problems without and with it; ``gain``: ``gain.json`` has both, with
   intervals. An adapter whose gain is not above 0 is not worth its bytes.
4. ``prm-head`` and ``prm``: fit a head on the model's frozen first layers at several depths (``head/report.json``),
   then train on from the best with a change of low rank.

Everything samples and trains with PyTorch, on a GPU where there is one; nothing is downloaded. Each stage runs in a
process of its own with its output in ``RUN/log``; one that was cut goes on, a finished one is not run again. With
``--until`` a run is spread over several sessions of a machine, or over machines that exchange the folder RUN.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.train.stages import Stage, recipe, run_command, run_stages

NAMES = ("rows", "self-train", "adapter", "before", "after", "gain", "prm-head", "prm")


@dataclass(frozen=True)
class Settings:
    """What the pipeline was asked for."""

    base: Path
    data: Path
    out: Path
    problems: int
    """Training problems."""
    validation: int
    """Validation problems."""
    samples: int
    width: int
    """Sequences that are sampled at once."""
    max_tokens: int
    """Of a sample."""
    minutes: float
    """Self-training."""
    prm_minutes: float
    rank: int


def stages(asked: Settings) -> Iterator[Stage]:
    """The stages, in the order of ``NAMES``."""
    out, base = asked.out, ["--base", asked.base]
    drawn = [*base, "--format", "program", "--data", asked.data, "--samples", asked.samples, "--width", asked.width]
    drawn += ["--temperature", 0.7, "--max-tokens", asked.max_tokens]
    rows, head, tuned = out / "rows.jsonl", out / "head", out / "self-train"

    def sample(name: str, split: str, problems: int, *more: object) -> Stage:
        what = ["--split", split, "--problems", problems, "--out", out / f"{name}.jsonl"]
        return recipe(out, name, "train.rollouts", *drawn, *what, *more)

    yield sample("rows", "train", asked.problems)
    change = ["--data", rows, "--out", tuned, "--rank", asked.rank, "--minutes", asked.minutes]
    yield recipe(out, "self-train", "train.self_train", *base, *change)
    converted = ["--peft", tuned / "adapter", "--out", out / "adapter.gguf", "--storage", "Q8_0"]
    yield recipe(out, "adapter", "adapter", *base, *converted)
    yield sample("before", "validation", asked.validation)
    yield sample("after", "validation", asked.validation, "--tuned", tuned / "adapter")
    compared = [
        sys.executable,
        "-P",
        "-m",
        "edge_tts.bench.compare_policies",
        out / "before.jsonl",
        out / "after.jsonl",
    ]
    yield Stage("gain", lambda: run_command(out, "gain", [*compared, "--out", out / "gain.json"]))
    yield recipe(out, "prm-head", "train.fit_prm", *base, "--data", rows, "--out", head)
    trained = ["--base", head, "--data", rows, "--rank", asked.rank, "--minutes", asked.prm_minutes]
    yield recipe(out, "prm", "train.train_prm", *trained, "--out", out / "prm")


def run(asked: Settings, until: str | None = None) -> None:
    """Run the stages that are not done yet, up to and including ``until``. Raises InputError where one fails."""
    if until is not None and until not in NAMES:
        raise InputError(f"--until {until}: there is no such stage; choose one of {', '.join(NAMES)}")
    run_stages(asked.out, stages(asked), until)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="chat model as GGUF (Llama or Qwen2)")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: id, question, answer, solution")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--problems", type=int, default=2000, help="training problems")
    parser.add_argument("--validation", type=int, default=200, help="validation problems")
    parser.add_argument("--samples", type=int, default=8, help="programs of each")
    parser.add_argument("--width", type=int, default=1024, help="sequences sampled at once")
    parser.add_argument("--max-tokens", type=int, default=200, help="of a program")
    parser.add_argument("--minutes", type=float, default=4.0, help="of self-training")
    parser.add_argument("--prm-minutes", type=float, default=3.0, help="of training the process reward model")
    parser.add_argument("--rank", type=int, default=16, help="of both changes")
    parser.add_argument("--until", help=f"last stage to run: {', '.join(NAMES)}")
    options = vars(parser.parse_args())
    until = options.pop("until")
    run(Settings(**options), until)


if __name__ == "__main__":
    sys.exit(command.run(main))
