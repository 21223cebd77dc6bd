"""Supervised fine-tuning of the policy on equation steps (and revision chains).

The loss counts answer tokens only, and gives little weight to results, which the calculator writes. Training is in
float32 on a CPU, with bfloat16 autocast on a GPU; batches are bucketed by length. There is a checkpoint every few
minutes, and the same command resumes.

A LoRA run (RUN1) can be followed by a full one that starts from it (RUN2). Once that is reduced to an adapter, another
run (RUN3) can train the adapter through its quantisation. It can take the policy's own samples as further solutions and
as mistakes to revise:

    python -m edge_tts.export.train.sft --base BASE.gguf --data gsm8k_train.jsonl --out RUN1 --minutes 46
    python -m edge_tts.export.train.sft --base BASE.gguf --data gsm8k_train.jsonl --out RUN2 --minutes 60 \\
        --start RUN1/adapter --rank 0 --learning-rate 3e-4
    python -m edge_tts.export.train.sft --base BASE.gguf --data gsm8k_train.jsonl --out RUN3 --minutes 60 \\
        --start adapter.gguf --learning-rate 5e-4 --samples rollouts.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from edge_tts.export import command
from edge_tts.export.gguf_model import load_gguf
from edge_tts.export.train import quantised_lora
from edge_tts.export.train.batches import bucketed
from edge_tts.export.train.data import Problem, read_problems, split
from edge_tts.export.train.examples import Samples, epoch, read_samples
from edge_tts.export.train.policy_tokenizer import load_tokenizer
from edge_tts.reasoning.prompts import PromptFormat

CHECKPOINT_SECONDS = 300


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of any run that trains a policy.

    ``minutes`` is the training time, which the learning-rate schedule follows. ``rank`` 0 trains all weights of the
    blocks; the embeddings stay frozen. With LoRA, blocks below ``first_layer`` are not trained: nothing is
    back-propagated through them, which saves a sixth of the time.
    """

    minutes: float = 60.0
    learning_rate: float = 1.5e-3
    rank: int = 32
    alpha: int = 32
    first_layer: int = 8
    batch_size: int = 16
    batch_tokens: int = 2400
    """Most tokens of a batch, padding included; it bounds memory, so long examples come in smaller batches."""
    warmup: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class SftConfig(TrainConfig):
    """Hyper-parameters of a run on equations."""

    revision_share: float = 0.12
    redrawn_share: float = 0.5
    """Share of an epoch's problems that get new numbers, where that is possible."""
    result_weight: float = 0.1
    """Loss weight of the digits after "=": a pack with a calculator does not need them."""


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of the text that follows it, with the loss weight of each of those."""

    prompt: list[int]
    target: list[int]
    weights: list[float]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.target)


def encode(
    problem: Problem, attempts: Sequence[str], tokenizer: Any, prompts: PromptFormat, result_weight: float
) -> Example:
    """Tokenise one problem, with earlier wrong ``attempts`` in its context."""
    prompt = tokenizer.encode(prompts.render(problem.question, attempts), add_special_tokens=False)
    parts: list[tuple[str, float]] = []
    for step in problem.steps:
        expression, _, result = step.rpartition("=")
        parts += [(expression + "=", 1.0), (result, result_weight), (prompts.step_delimiter, 1.0)]
    parts.append((prompts.answer_marker + problem.answer + prompts.end, 1.0))
    target: list[int] = []
    weights: list[float] = []
    for text, weight in parts:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        target += tokens
        weights += [weight] * len(tokens)
    return Example(prompt, target, weights)


def epochs(
    problems: Sequence[Problem], samples: Samples, tokenizer: Any, prompts: PromptFormat, config: SftConfig
) -> Iterator[list[Example]]:
    """Yield batches for ever: each epoch drawn anew, shuffled, bucketed by length."""
    rng = random.Random(config.seed)
    while True:
        drawn = epoch(problems, samples, config.redrawn_share, config.revision_share, rng)
        examples = [encode(problem, attempts, tokenizer, prompts, config.result_weight) for problem, attempts in drawn]
        bucket = 40 * config.batch_size
        yield from bucketed(examples, bucket, lambda e: e.tokens, rng, config.batch_tokens, config.batch_size)


def collate(batch: Sequence[Example], pad: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-pad to (batch, longest): token ids, attention mask, loss weights (0 off target)."""
    longest = max(example.tokens for example in batch)
    ids = torch.full((len(batch), longest), pad)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    weights = torch.zeros((len(batch), longest))
    for row, example in enumerate(batch):
        tokens = torch.tensor(example.prompt + example.target)
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        weights[row, len(example.prompt) : len(tokens)] = torch.tensor(example.weights)
    return ids.to(device), mask.to(device), weights.to(device)


def answer_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy over target tokens; the vocabulary projection runs on those alone."""
    llama: Any = model.base_model.model if isinstance(model, PeftModel) else model
    hidden = llama.model(input_ids=ids, attention_mask=mask).last_hidden_state
    wanted = weights[:, 1:] > 0
    logits = llama.lm_head(hidden[:, :-1][wanted])
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
    return (losses * weights[:, 1:][wanted]).sum() / weights[:, 1:].sum()


def load_base(gguf: Path) -> tuple[Any, Any]:
    """Load a Llama or Qwen2 GGUF, dequantised to float32, with its tokenizer."""
    return load_gguf(gguf), load_tokenizer(gguf)


def load_policy(base: Path, tuned: Path | None) -> tuple[Any, Any]:
    """The fine-tuned policy: ``base`` with a PEFT or GGUF adapter, or a whole model's folder in its place."""
    if tuned is not None and (tuned / "model.safetensors").exists():
        return AutoModelForCausalLM.from_pretrained(str(tuned), dtype=torch.float32), load_tokenizer(base)
    model, tokenizer = load_base(base)
    model = adapted(model, tuned)
    quantised_lora.freeze(model)
    return model, tokenizer


def adapted(model: Any, adapter: Path | None) -> Any:
    """``model`` with a PEFT adapter merged in, or with the layers of a GGUF one attached."""
    if adapter is None:
        return model
    if adapter.suffix == ".gguf":
        quantised_lora.attach(model, adapter)
        return model
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def trainable(model: Any, config: TrainConfig, start: Path | None) -> Any:
    """Make weights trainable: LoRA matrices or all weights of the blocks, after merging the adapter ``start``.

    If ``start`` is a GGUF adapter, its own matrices are trained, through their quantisation.
    """
    torch.manual_seed(config.seed)
    model = adapted(model, start)
    if quantised_lora.is_attached(model):
        return model
    if not config.rank:
        for name, weight in model.named_parameters():
            weight.requires_grad = ".layers." in name and "proj" in name
        return model
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    layers = list(range(config.first_layer, model.config.num_hidden_layers))
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=modules, layers_to_transform=layers, lora_dropout=0.0
    )
    return get_peft_model(model, lora)


def save_result(model: Any, tokenizer: Any, out: Path) -> None:
    """``out/adapter`` as PEFT writes it where LoRA was trained, else the whole ``out/model``."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(out / "adapter"))
    elif quantised_lora.is_attached(model):
        quantised_lora.save(model, out / "adapter")
    else:
        model.save_pretrained(str(out / "model"))
        tokenizer.save_pretrained(str(out / "model"))


def train(
    base: Path, data: Path, out: Path, config: SftConfig, start: Path | None, samples: Sequence[Path] = ()
) -> None:
    """Run or resume one fine-tuning run in ``out``.

    ``samples`` are files of the rollouts recipe. Leaves ``out/adapter`` (LoRA, as PEFT) or
    ``out/model`` (full, as transformers), and ``out/log.jsonl``.
    """
    model, tokenizer = load_base(base)
    model = trainable(model, config, start)
    problems, _ = split(read_problems(data))
    batches = epochs(problems, read_samples(samples, problems), tokenizer, PromptFormat(), config)
    fit(model, tokenizer, batches, out, config)


def fit(model: Any, tokenizer: Any, batches: Iterator[list[Example]], out: Path, config: TrainConfig) -> None:
    """Train ``model`` on ``batches`` for the run's time, or go on with the run in ``out``; see :func:`train`."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    state_file = out / "state.pt"
    step, spent, tokens = 0, 0.0, 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["weights"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        step, spent, tokens = state["step"], state["spent"], state["tokens"]
    for _ in range(step):
        next(batches)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    begun, saved = time.monotonic() - spent, time.monotonic()
    while (spent := time.monotonic() - begun) < config.minutes * 60:
        rate = schedule(spent / (config.minutes * 60), config.warmup)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate
        ids, mask, wanted = collate(next(batches), tokenizer.pad_token_id or 0, device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = answer_loss(model, ids, mask, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + int(mask.sum())
        row = {"step": step, "loss": round(loss.item(), 4), "seconds": round(spent, 1), "tokens": tokens}
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if step % 20 == 0:
            print(row, f"{tokens / max(spent, 1):.0f} tokens/s", flush=True)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            save_state(state_file, model, optimiser, step, spent, tokens)
            save_result(model, tokenizer, out)
    save_state(state_file, model, optimiser, step, spent, tokens)
    save_result(model, tokenizer, out)


def schedule(progress: float, warmup: float) -> float:
    """Learning-rate factor at ``progress`` in [0, 1]: linear warm-up, then cosine to a tenth."""
    if progress < warmup:
        return progress / warmup + 0.01
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def save_state(path: Path, model: Any, optimiser: torch.optim.Optimizer, step: int, spent: float, tokens: int) -> None:
    """Write the resumable state of a run, atomically."""
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    state = {"weights": weights, "optimiser": optimiser.state_dict(), "step": step, "spent": spent, "tokens": tokens}
    save_torch(path, state)


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write a torch file atomically."""
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base policy as GGUF")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--start", type=Path, default=None, help="PEFT adapter to merge, or GGUF one to train on")
    parser.add_argument("--samples", type=Path, action="append", default=[], help="rollouts of training problems")
    for name, default in asdict(SftConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    base, data, out, start, samples = (options.pop(name) for name in ("base", "data", "out", "start", "samples"))
    train(base, data, out, SftConfig(**options), start, samples)


if __name__ == "__main__":
    sys.exit(command.run(main))
