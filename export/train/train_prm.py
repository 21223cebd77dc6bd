"""Training of the process reward model on soft step labels.

Input rows (JSON lines): ``id``, ``question``, ``steps`` (texts, the answer line last) and ``labels`` (one for each
step, in [0, 1]: the share of the policy's rollouts from there that end right, as in Snell et al. 2024, appendix D).
Rows with ``answer`` and ``correct`` also measure selection in validation.

The model starts from the first layers of a policy, given as a GGUF or a folder, or from a run of :mod:`fit_prm`,
which has a head already. It trains in float32 on a CPU, with bfloat16 autocast on a GPU. The same command resumes:

    python -m edge_tts.export.train.train_prm --base policy.gguf --layers 6 --data rollouts.jsonl \\
        --validation val.jsonl --out RUN --minutes 40
    python -m edge_tts.export.train.train_prm --base FITTED --rank 16 --frozen-layers 4 --data rows.jsonl --out RUN
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

import torch
from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm_metrics import selection, step_metrics
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train.batches import batched, bucketed
from edge_tts.export.train.packing import Pack, Packer, collate
from edge_tts.export.train.sft import save_torch, schedule
from edge_tts.export.truncated_policy import POSITIONS, Reads, TruncatedPolicy, load_policy, load_run, step_encoder
from edge_tts.export.vocabulary import trim_bpe
from edge_tts.packs.gguf_tokenizer import tokenizer_json
from edge_tts.runtimes.step_marks import MARKS

CHECKPOINT_SECONDS = 180
BUCKET = 200
"""Packs that are sorted by length together."""
SAMPLE_ROWS = 100
"""Rows kept in the run folder; the export compares scores on them."""


@dataclass(frozen=True)
class PrmConfig:
    """Hyper-parameters of one run. ``minutes`` bounds the updates; evaluations come on top."""

    minutes: float = 10.0
    layers: int = 4
    """First layers of the policy that are kept."""
    frozen_layers: int = 0
    """First layers that are not trained: nothing is back-propagated through them."""
    rank: int = 0
    """Rank of the change to the other layers (LoRA); 0 trains all their weights."""
    reads: str = "equations"
    """What traces are: equations of a pack's policy, or "chat": what a chat model writes."""
    learning_rate: float = 3e-4
    """Of the layers, which start from trained weights."""
    head_learning_rate: float = 1e-3
    """Of the head, which starts from random weights."""
    dropout: float = 0.0
    vocabulary: int = 5120
    """Tokens kept of the policy's; 0 keeps all."""
    pack_tokens: int = 400
    """A question and some of its traces are packed into about this many tokens."""
    batch_tokens: int = 1200
    """Tokens of one update, padding included."""
    warmup: float = 0.05
    evaluate_seconds: float = 150.0
    seed: int = 0


def chunk_logits(model: TruncatedPolicy, packs: Sequence[Pack], device: str) -> torch.Tensor:
    """Score logits of all chunks of all packs, questions included, in order."""
    ids, positions, seen, ends = collate(packs, device)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits: torch.Tensor = model(ids, positions, seen)
    return logits.flatten()[ends].float()


def pack_loss(model: TruncatedPolicy, packs: Sequence[Pack], device: str) -> torch.Tensor:
    """Binary cross-entropy against the soft labels, averaged over the steps of all traces."""
    labels = torch.tensor([label for pack in packs for label in pack.labels], device=device)
    weights = torch.tensor([weight for pack in packs for weight in pack.weights], device=device)
    logits = chunk_logits(model, packs, device)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


def epochs(rows: Sequence[Row], packer: Packer, config: PrmConfig) -> Iterator[list[Pack]]:
    """Yield batches for ever: each epoch reshuffled, packed anew, bucketed by length."""
    rng = random.Random(config.seed)
    while True:
        shuffled = rng.sample(rows, len(rows))
        packs = [pack for _, pack in packer.packs(shuffled)]
        yield from bucketed(packs, BUCKET, lambda pack: pack.tokens, rng, config.batch_tokens)


@torch.no_grad()
def evaluate(
    model: TruncatedPolicy, rows: Sequence[Row], packer: Packer, batch_tokens: int, device: str
) -> dict[str, float]:
    """Validation metrics: cross-entropy and AUC of steps, and the accuracy of selecting by the last score."""
    model.eval()
    pairs = sorted(packer.packs(rows), key=lambda pair: pair[1].tokens)
    batches = batched([pack for _, pack in pairs], lambda pack: pack.tokens, 2 * batch_tokens)
    logits = torch.cat([chunk_logits(model, batch, device) for batch in batches])
    scores = torch.sigmoid(logits).tolist()
    model.train()
    steps: list[tuple[float, float]] = []
    finals: list[tuple[str, str, bool, float]] = []
    offset = 0
    for taken, pack in pairs:
        for row, nodes in zip(taken, pack.nodes, strict=True):
            steps += [(scores[offset + node], label) for node, label in zip(nodes, row.labels, strict=False)]
            if row.answer is not None and row.correct is not None and nodes:
                finals.append((row.id, row.answer, row.correct, scores[offset + nodes[-1]]))
        offset += len(pack.chunks)
    return {**step_metrics(steps), **(selection(finals) if finals else {})}


def prepare(rows: Sequence[Row], out: Path, config: PrmConfig, base: Path) -> tuple[TruncatedPolicy, Tokenizer]:
    """A model with the base's weights, and its trimmed tokenizer, which is also written to ``out``.

    A run of :mod:`fit_prm` or of this recipe goes on as it is, with its layers, tokens and head.
    """
    if (base / "model.pt").exists():
        text, model = (base / "tokenizer.json").read_text(encoding="utf-8"), load_run(base)
    else:
        text, model = _truncated(rows, out, config, base)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    if config.rank:
        model.adapt(config.rank, config.frozen_layers)
    return model, Tokenizer.from_str(text)


def _truncated(rows: Sequence[Row], out: Path, config: PrmConfig, base: Path) -> tuple[str, TruncatedPolicy]:
    """The tokenizer.json and the first layers of a GGUF or a checkpoint folder."""
    if config.reads not in get_args(Reads):
        raise InputError(f"reads must be one of {', '.join(get_args(Reads))}; got {config.reads!r}")
    reads = cast(Reads, config.reads)
    source, kept = base / "tokenizer.json", None
    if base.suffix == ".gguf":
        source = out / "tokenizer.json"
        source.write_text(tokenizer_json(base), encoding="utf-8")
    if config.vocabulary:
        texts = [text for row in rows for text in (row.question, *row.steps)]
        text, kept = trim_bpe(source, texts, config.vocabulary, MARKS if reads == "equations" else ())
    else:
        text = source.read_text(encoding="utf-8")
    return text, load_policy(base, kept, config.layers, config.frozen_layers, config.dropout, reads)


def train(data: Path, out: Path, config: PrmConfig, base: Path, validation: Path | None = None) -> None:
    """Run or resume one training run in ``out``, from the policy ``base`` (a GGUF or a folder).

    Leaves ``model.pt`` (the weights with the least validation cross-entropy; without ``validation``,
    the last), ``tokenizer.json``, ``sample.jsonl``, ``config.json`` and ``log.jsonl``.
    """
    run, batches = start(data, out, config, base, validation)
    run.loop(batches)


def start(
    data: Path, out: Path, config: PrmConfig, base: Path, validation: Path | None = None
) -> tuple[Run, Iterator[list[Pack]]]:
    """The run in ``out``, new or as its last checkpoint left it, and the batches it has not seen yet."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = read_rows(data)
    held_out = read_rows(validation) if validation else []
    model, tokenizer = prepare(rows, out, config, base)
    model = model.to(device).train()
    write_sample(out, held_out or rows, config.seed)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    packer = Packer(step_encoder(tokenizer, model.reads), POSITIONS[model.reads], config.pack_tokens)
    trained, head = [p for p in model.backbone.parameters() if p.requires_grad], list(model.head.parameters())
    optimiser = torch.optim.Adam(
        [{"params": trained, "peak": config.learning_rate}, {"params": head, "peak": config.head_learning_rate}]
    )
    run = Run(out, model, optimiser, held_out, packer, config, device)
    run.resume()
    batches = epochs(rows, packer, config)
    for _ in range(run.step):
        next(batches)
    return run, batches


@dataclass
class Run:
    """The state of a training run between two updates."""

    out: Path
    model: TruncatedPolicy
    optimiser: torch.optim.Optimizer
    held_out: Sequence[Row]
    packer: Packer
    config: PrmConfig
    device: str
    step: int = 0
    spent: float = 0.0
    """Seconds of updates, over all resumptions."""
    best: float = float("inf")
    """Least validation cross-entropy so far."""

    def resume(self) -> None:
        path = self.out / "state.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"], strict=False)
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.spent, self.best = state["step"], state["spent"], state["best"]

    def loop(self, batches: Iterator[list[Pack]]) -> None:
        """Train until the time is up, saving and evaluating on the way."""
        limit = self.config.minutes * 60
        saved = evaluated = self.spent
        while self.spent < limit:
            start = time.monotonic()
            self.update(next(batches), self.spent / limit)
            self.spent += time.monotonic() - start
            if self.spent - evaluated > self.config.evaluate_seconds:
                self.evaluate()
                evaluated = self.spent
            if self.spent - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = self.spent
        self.evaluate()
        self.save()

    def update(self, batch: Sequence[Pack], progress: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * schedule(progress, self.config.warmup)
        loss = pack_loss(self.model, batch, self.device)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.log({"loss": round(loss.item(), 4), "tokens": sum(pack.tokens for pack in batch)})

    def evaluate(self) -> None:
        """Log validation metrics, and keep the weights if they are the best so far."""
        if self.held_out:
            metrics = evaluate(self.model, self.held_out, self.packer, self.config.batch_tokens, self.device)
            self.log({name: round(value, 4) for name, value in metrics.items()})
            if metrics["bce"] >= self.best:
                return
            self.best = metrics["bce"]
        save_torch(self.out / "model.pt", self.model.content())

    def save(self) -> None:
        weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        state = {"model": weights, "optimiser": self.optimiser.state_dict()}
        save_torch(self.out / "state.pt", state | {"step": self.step, "spent": self.spent, "best": self.best})

    def log(self, values: dict[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.spent, 1), **values}
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.step % 20 == 0 or "bce" in values:
            print(row, flush=True)


def write_sample(out: Path, rows: Sequence[Row], seed: int) -> None:
    """Keep some traces in the run folder, for the export to compare scores on."""
    chosen = random.Random(seed).sample(rows, min(SAMPLE_ROWS, len(rows)))
    lines = [json.dumps({"question": row.question, "steps": row.steps}) for row in chosen]
    (out / "sample.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled traces, JSON lines")
    parser.add_argument("--validation", type=Path, help="labelled traces of other questions, same format")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--base", type=Path, required=True, help="a GGUF, a checkpoint folder, or a run of fit_prm")
    for name, default in asdict(PrmConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")
    options = vars(parser.parse_args())
    data, validation, out, base = (options.pop(name) for name in ("data", "validation", "out", "base"))
    train(data, out, PrmConfig(**options), base, validation)


if __name__ == "__main__":
    sys.exit(command.run(main))
