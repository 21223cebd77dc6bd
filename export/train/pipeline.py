"""Train a pack from a base model and problems, in one command that can be interrupted and run again.

    python -m edge_tts.export.train.pipeline --data gsm8k_train.jsonl --base BASE.gguf --out RUN --minutes 150

1. Fine-tune all weights, reduce their change to an adapter, and train the adapter through its quantisation.
2. Rejection sampling, in rounds: sample the training problems, train on new right solutions and on revisions of wrong
   ones. It ends after two rounds in a row without a gain on validation problems.
3. Label traces and revisions by Monte Carlo. Train a process reward model on them, made of the policy's first layers,
   and export it, unless it ranks steps unlike its original.
4. Assemble the pack and fit what `auto` does with it on other validation problems.

With ``--vocabulary`` the pack keeps only so many of the base's tokens, and samples are drawn with those.

The same command runs on a CPU and on a GPU, where PyTorch samples instead of llama.cpp. ``--minutes`` is training time;
sampling comes on top. Each stage is a recipe of this package, runs in a process of its own and writes its output to
``RUN/log``. An interrupted stage resumes, a finished one is not run again. With ``--until``, a run can be spread over
several machines or sessions: all they have to exchange is the folder RUN, and of that, ``state.pt`` files and
``sft/model`` only in the middle of a stage.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm_metrics import selection
from edge_tts.export.trace_rows import read_rows
from edge_tts.export.train.data import read_problems, split
from edge_tts.export.train.stages import Stage, recipe, run_command, run_recipe, run_stages
from edge_tts.packs.manifest import Recipe
from edge_tts.packs.merge_adapter import merge

CLI = (sys.executable, "-P", "-m", "edge_tts")
TABLE_PROBLEMS = 150
"""Validation problems kept for what `auto` does with the pack; rounds and the PRM are validated on others."""
SHARES = {"sft": 0.4, "quantised": 0.12, "round": 0.14, "prm": 0.2}
"""Shares of the training minutes; ``round`` counts for each of two rounds, and further rounds come on top."""
STAGE = re.compile(
    r"sft(-convert)?|extract|vocabulary|(quantised|round-\d+)(-convert|-validation|-train|-revised)?|labelled|policy"
    r"|prm(-export)?|figures|pack|table-problems|study|table"
)
"""The names that stages have."""
PATIENCE = 2
"""Rounds without a gain that end the rejection sampling."""


@dataclass(frozen=True)
class Settings:
    """What the pipeline was asked for."""

    data: Path
    base: Path
    out: Path
    minutes: float
    problems: int
    """Training problems sampled in a round."""
    samples: int
    rounds: int
    validation: int
    """Validation problems that decide on a round."""
    rank: int
    vocabulary: int | None
    """Tokens kept of the base's; None for all."""
    torch: bool
    """Whether PyTorch samples."""


def stages(settings: Settings) -> Iterator[Stage]:
    """The stages, in order; the number of rounds depends on the results of earlier stages."""
    out, minutes = settings.out, settings.minutes
    common = ["--base", settings.base, "--data", settings.data]
    full, adapter = out / "sft", out / "quantised"

    def sft(target: Path, share: str, *arguments: object) -> Stage:
        spent = ["--out", target, "--minutes", minutes * SHARES[share]]
        return _stage(settings, target.name, "train.sft", *common, *spent, *arguments)

    yield sft(full, "sft", "--rank", 0, "--learning-rate", 3e-4)
    cut = ["--base", settings.base, "--model", full / "model", "--rank", settings.rank, "--out", full / "adapter"]
    yield _stage(settings, "extract", "train.extract", *cut)
    if settings.vocabulary:
        kept = ["--size", settings.vocabulary, "--out", _vocabulary(settings)]
        yield _stage(settings, "vocabulary", "train.policy_tokenizer", *common, *kept)
    yield _converted(settings, full)
    yield sft(adapter, "quantised", "--start", full / "adapter.gguf", "--learning-rate", 4e-4)
    yield _converted(settings, adapter)
    yield _sampled(settings, adapter, "validation")

    best, idle = adapter, 0
    for number in range(1, settings.rounds + 1):
        yield _sampled(settings, best, "train")
        current = out / f"round-{number}"
        own = [argument for path in sorted(out.glob("*/train.jsonl")) for argument in ("--samples", path)]
        yield sft(current, "round", "--start", best / "adapter.gguf", "--learning-rate", 2e-4, "--seed", number, *own)
        yield _converted(settings, current)
        yield _sampled(settings, current, "validation")
        gained = accuracy(current / "validation.jsonl") > accuracy(best / "validation.jsonl")
        _log(settings, {"round": number, "kept": gained, **measured(settings, current)})
        best, idle = (current, 0) if gained else (best, idle + 1)
        if idle == PATIENCE:
            break

    yield _sampled(settings, best, "train")
    yield _sampled(settings, best, "revised", "--attempts", best / "train.jsonl", "--samples", settings.samples // 4)
    yield Stage("labelled", lambda: _joined([best / "train.jsonl", best / "revised.jsonl"], out / "labelled.jsonl"))
    if settings.torch:  # llama.cpp has merged it already, to sample from it
        yield Stage("policy", lambda: _merged(settings, best))
    held = ["--data", out / "labelled.jsonl", "--validation", best / "validation.jsonl"]
    held += ["--base", best / "policy.gguf", "--out", out / "prm", "--minutes", minutes * SHARES["prm"]]
    yield _stage(settings, "prm", "train.train_prm", *held)
    export = [*CLI, "export", "prm", out / "prm", "--out", out / "verifier"]
    yield Stage("prm-export", lambda: run_command(settings.out, "prm-export", export))
    yield from _packed(settings, best)


def _packed(settings: Settings, policy: Path) -> Iterator[Stage]:
    """Assemble the pack, then fit what ``auto`` does with it on validation problems."""
    out = settings.out
    pack, study, problems = out / "pack", out / "study", out / "table-problems.jsonl"
    verifier = out / "verifier"
    parts = ["--base", settings.base, "--adapter", policy / "adapter.gguf", "--prm", verifier / "prm.onnx"]
    parts += ["--tokenizer", verifier / "tokenizer.json", "--out", pack]
    yield Stage("figures", lambda: _figures(settings, policy))
    figures = ["--figures", out / "figures.json", "--temperature", 0.5]
    yield _stage(settings, "pack", "train.assemble_pack", *parts, *figures)
    yield Stage("table-problems", lambda: _table_problems(settings, problems))
    bench = ["bench", "run", "--data", problems, "--pack", pack, "--strategies", "majority,weighted,best-of-n,beam"]
    budgets = ["--budgets", "4,8,16", "--search-budgets", "4,8", "--out", study]
    yield Stage("study", lambda: run_command(settings.out, "study", [*CLI, *bench, *budgets]))
    fit = ["bench", "fit", study, "--pack", pack]
    yield Stage("table", lambda: run_command(settings.out, "table", [*CLI, *fit]))


def _converted(settings: Settings, folder: Path) -> Stage:
    """The adapter in ``folder`` as GGUF and, where llama.cpp samples, merged to a policy."""

    def convert() -> None:
        adapter = folder / "adapter.gguf"
        names = ["--peft", folder / "adapter", "--base", settings.base, "--out", adapter]
        if settings.vocabulary:
            names += ["--vocabulary", _vocabulary(settings)]
        run_recipe(settings.out, f"{folder.name}-convert", "adapter", *names)
        if not settings.torch:
            _merged(settings, folder)

    return Stage(f"{folder.name}-convert", convert)


def _merged(settings: Settings, folder: Path) -> None:
    merge(settings.base, folder / "adapter.gguf", folder / "policy.gguf", Recipe.quantisation)


def _vocabulary(settings: Settings) -> Path:
    return settings.out / "vocabulary.json"


def _sampled(settings: Settings, policy: Path, kind: str, *more: object) -> Stage:
    """Sample labelled traces of ``policy``, on training or validation problems, or revisions of the former."""
    validation = kind == "validation"
    count = settings.validation if validation else settings.problems
    source: list[object] = ["--policy", policy / "policy.gguf", "--width", 32]
    if settings.torch:
        source = ["--base", settings.base, "--tuned", policy / "adapter.gguf", "--width", 1024]
    arguments = ["--data", settings.data, "--split", "validation" if validation else "train", "--problems", count]
    arguments += ["--samples", settings.samples, "--out", policy / f"{kind}.jsonl", *more]
    name = f"{policy.name}-{kind}"
    return _stage(settings, name, "train.rollouts", *source, *arguments)


def accuracy(rollouts: Path) -> float:
    """The mean of two accuracies over the problems of ``rollouts``: of the majority vote and of single samples.

    The vote is what a user gets; single samples are less noisy at this number of problems.
    """
    rows = read_rows(rollouts)
    rates = selection([(row.id, str(row.answer), bool(row.correct), 0.0) for row in rows])
    return (rates["pass_at_1"] + rates["majority"]) / 2


def measured(settings: Settings, policy: Path) -> dict[str, float]:
    return {"validation": round(accuracy(policy / "validation.jsonl"), 4), "problems": settings.validation}


def _joined(sources: Sequence[Path], target: Path) -> None:
    target.write_text("".join(path.read_text(encoding="utf-8") for path in sources), encoding="utf-8")


def _table_problems(settings: Settings, target: Path) -> None:
    """The last of the shuffled validation problems; the rollouts recipe takes the first ones of the same order."""
    _, held_out = split(read_problems(settings.data))
    random.Random(0).shuffle(held_out)
    if settings.validation + TABLE_PROBLEMS > len(held_out):
        raise InputError(
            f"{settings.validation} validation problems leave fewer than {TABLE_PROBLEMS} of {len(held_out)} for what "
            "`auto` is fitted on; lower --validation"
        )
    rows = [{"id": p.id, "question": p.question, "answer": p.answer} for p in held_out[-TABLE_PROBLEMS:]]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _figures(settings: Settings, policy: Path) -> None:
    """Figures for the model card: minutes of training, and the validation score after each round."""
    log = settings.out / "rounds.jsonl"
    rounds = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    figures = {
        "training": f"{settings.minutes:g} minutes",
        "validation score before rejection sampling": measured(settings, settings.out / "quantised")["validation"],
        **{f"validation score after round {r['round']}": r["validation"] for r in rounds},
    }
    (settings.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _log(settings: Settings, row: dict[str, object]) -> None:
    """Add ``row`` to the log of rounds, unless an earlier run of the same command has added it."""
    log, line = settings.out / "rounds.jsonl", json.dumps(row) + "\n"
    with log.open("a+", encoding="utf-8") as rows:
        rows.seek(0)
        if line not in rows.readlines():
            rows.write(line)


def _stage(settings: Settings, name: str, module: str, *arguments: object) -> Stage:
    """A recipe of this package as a stage."""
    return recipe(settings.out, name, module, *arguments)


def run(settings: Settings, until: str | None = None) -> None:
    """Run the stages that are not done yet, up to and including ``until``. Raises InputError where one fails."""
    if until is not None and not STAGE.fullmatch(until):
        raise InputError(f"--until {until}: there is no such stage; each one's name is printed as it begins")
    run_stages(settings.out, stages(settings), until)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "base", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=150.0, help="of training, for two rounds")
    parser.add_argument("--problems", type=int, default=2000, help="training problems sampled in a round")
    parser.add_argument("--samples", type=int, default=16, help="traces of each")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--validation", type=int, default=200, help="validation problems that decide on a round")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, help="tokens kept of the base's (default: all)")
    parser.add_argument("--until", help="name of the last stage to run")
    options = vars(parser.parse_args())
    until = options.pop("until")
    import torch

    run(Settings(**options, torch=torch.cuda.is_available()), until)


if __name__ == "__main__":
    sys.exit(command.run(main))
