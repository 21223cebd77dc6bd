"""Training of the process reward model on soft step labels.

Input rows (JSON lines): ``id``, ``question``, ``steps`` (texts, the answer line last) and ``labels``
(one per step, in [0, 1]: the share of the policy's rollouts from there that end right, as in Snell
et al. 2024, appendix D). Rows with ``answer`` and ``correct`` also measure selection in validation.

The base is a small encoder (MiniLM, by default) or the first layers of a policy, from a folder of
either or a policy's GGUF; the loop is the same. In float32 on a CPU, bfloat16 autocast on a GPU; the
same command resumes:

    python -m edge_tts.export.train.train_prm --data rollouts.jsonl --validation val.jsonl --out RUN --minutes 10
    python -m edge_tts.export.train.train_prm --base policy.gguf --layers 6 --data rollouts.jsonl --out RUN --minutes 40
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export import command
from edge_tts.export.prm import load_minilm, minilm_folder
from edge_tts.export.prm_metrics import selection, step_metrics
from edge_tts.export.prm_policy import load_policy
from edge_tts.export.scorer import Scorer
from edge_tts.export.train.batches import batched, bucketed
from edge_tts.export.train.packing import Pack, Packer, collate
from edge_tts.export.train.rows import Row, read_rows
from edge_tts.export.train.sft import load_base, save_torch, schedule
from edge_tts.export.vocabulary import trim_bpe, trim_tokenizer
from edge_tts.runtimes.chunks import RESULT_MARKS, SOURCE_MARKS

CHECKPOINT_SECONDS = 180
BUCKET = 200
"""Packs that are sorted by length together."""
SAMPLE_ROWS = 100
"""Rows kept in the run folder for the parity account of the export."""


@dataclass(frozen=True)
class PrmConfig:
    """Hyper-parameters of one run, for an encoder; ``minutes`` bounds its updates, evaluations come on top."""

    minutes: float = 10.0
    layers: int = 6
    """Of the base, from the first, that are kept."""
    frozen_layers: int = 0
    """Of a policy's, from the first, that do not learn: nothing is back-propagated through them."""
    learning_rate: float = 5e-5
    """Of what has been trained before; at 2e-4 and such small batches an encoder collapses to a constant."""
    head_learning_rate: float = 1e-3
    """Of the head and an encoder's marks, which start from nothing."""
    dropout: float = 0.1
    vocabulary: int = 6656
    """Tokens kept of the base's (MiniLM has 30522)."""
    pack_tokens: int = 400
    """A question and some of its traces are packed into about this many tokens."""
    batch_tokens: int = 1200
    """Tokens of one update, padding included."""
    warmup: float = 0.05
    evaluate_seconds: float = 150.0
    seed: int = 0


POLICY = PrmConfig(layers=4, learning_rate=3e-4, vocabulary=5120, dropout=0.0)
"""The defaults where the base is a policy."""


def chunk_logits(model: Scorer, packs: Sequence[Pack], device: str) -> torch.Tensor:
    """Score logits of all chunks of all packs, questions included, in order."""
    ids, positions, mask, ends = collate(packs, model.causal, device)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits = model.token_logits(ids, positions, mask)
    return logits.flatten()[ends].float()


def pack_loss(model: Scorer, packs: Sequence[Pack], device: str) -> torch.Tensor:
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
def evaluate(model: Scorer, rows: Sequence[Row], packer: Packer, batch_tokens: int, device: str) -> dict[str, float]:
    """Validation metrics: step cross-entropy and AUC, and what selecting by the last score would answer."""
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


def is_policy(base: Path) -> bool:
    """Whether ``base`` is a GGUF or a folder of a causal Llama; else it is MiniLM's. Raises InputError for neither."""
    if base.suffix == ".gguf":
        return True
    try:
        kind = json.loads((base / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{base} is no folder of a base model ({error}); give a MiniLM's or a Llama policy's"
        ) from error
    if kind not in ("bert", "llama"):
        raise InputError(f"{base} holds a {kind!r} model; a PRM starts from a MiniLM ('bert') or a policy ('llama')")
    return bool(kind == "llama")


def prepare(rows: Sequence[Row], out: Path, config: PrmConfig, base: Path) -> tuple[Scorer, Any]:
    """A model with the base's weights and the trimmed tokenizer, which is also written to ``out``."""
    if base.suffix == ".gguf":
        with tempfile.TemporaryDirectory(dir=out) as folder:
            for part in load_base(base):
                part.save_pretrained(folder)
            return prepare(rows, out, config, Path(folder))
    texts = [text for row in rows for text in (row.question, *row.steps)]
    model: Scorer
    if is_policy(base):
        tokenizer_json, kept = trim_bpe(base / "tokenizer.json", texts, config.vocabulary)
        model = load_policy(base, kept, config.layers, config.frozen_layers, config.dropout)
        tokenizer = Tokenizer.from_str(tokenizer_json)
    else:
        tokenizer_json, kept = trim_tokenizer(base / "tokenizer.json", texts, config.vocabulary)
        model = encoder = load_minilm(base, kept, config.dropout, config.layers)
        tokenizer = Tokenizer.from_str(tokenizer_json)
        # Of the words only the marks learn: words that training never shows must keep their place among the others.
        learns = torch.zeros(len(kept), 1)
        learns[[tokenizer.token_to_id(mark) for mark in (*SOURCE_MARKS, *RESULT_MARKS)]] = 1
        encoder.words.weight.register_hook(lambda gradient: gradient * learns.to(gradient.device))  # type: ignore[no-untyped-call]
    (out / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    return model, tokenizer


def train(data: Path, out: Path, config: PrmConfig, validation: Path | None = None, base: Path | None = None) -> None:
    """Run or resume one training run in ``out``.

    Leaves ``model.pt`` (the weights with the least validation cross-entropy; without ``validation``,
    the last), ``tokenizer.json``, ``sample.jsonl``, ``config.json`` and ``log.jsonl``.
    """
    run, batches = start(data, out, config, validation, base)
    run.loop(batches)


def start(
    data: Path, out: Path, config: PrmConfig, validation: Path | None = None, base: Path | None = None
) -> tuple[Run, Iterator[list[Pack]]]:
    """The run in ``out``, new or as its last checkpoint left it, and the batches it has not seen yet."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    # Masked attention weights are tiny numbers; their products must not fall into the slow denormal range.
    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = read_rows(data)
    held_out = read_rows(validation) if validation else []
    model, tokenizer = prepare(rows, out, config, base or minilm_folder())
    model = model.to(device).train()
    write_sample(out, held_out or rows, config.seed)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    packer = Packer(model.chunks(tokenizer), model.positions, config.pack_tokens)
    fresh = model.fresh()
    trained = [p for p in model.parameters() if p.requires_grad and all(p is not other for other in fresh)]
    optimiser = torch.optim.Adam(
        [{"params": trained, "peak": config.learning_rate}, {"params": fresh, "peak": config.head_learning_rate}]
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
    model: Scorer
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
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.spent, self.best = state["step"], state["spent"], state["best"]

    def loop(self, batches: Iterator[list[Pack]]) -> None:
        """Train until the time is up, with checkpoints and evaluations on the way."""
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
        save_torch(self.out / "model.pt", {"shape": self.model.description(), "weights": self.model.state_dict()})

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        save_torch(self.out / "state.pt", state | {"step": self.step, "spent": self.spent, "best": self.best})

    def log(self, values: dict[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.spent, 1), **values}
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.step % 20 == 0 or "bce" in values:
            print(row, flush=True)


def write_sample(out: Path, rows: Sequence[Row], seed: int) -> None:
    """Keep some traces in the run folder, for the parity account of the export."""
    chosen = random.Random(seed).sample(rows, min(SAMPLE_ROWS, len(rows)))
    lines = [json.dumps({"question": row.question, "steps": row.steps}) for row in chosen]
    (out / "sample.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled traces, JSON lines")
    parser.add_argument("--validation", type=Path, help="labelled traces of other questions, same format")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--base", type=Path, help="folder of a policy or MiniLM, or a policy's GGUF (default: MiniLM)")
    for name, default in asdict(PrmConfig()).items():
        text = f"default {default}, of a policy {getattr(POLICY, name)}"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), help=text)
    options = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    data, validation, out, base = (options.pop(name, None) for name in ("data", "validation", "out", "base"))
    defaults = POLICY if base is not None and is_policy(base) else PrmConfig()
    train(data, out, replace(defaults, **options), validation, base)


if __name__ == "__main__":
    sys.exit(command.run(main))
