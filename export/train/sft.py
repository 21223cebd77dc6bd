"""Supervised LoRA fine-tuning of the policy on equation steps (and revision chains).

Loss on answer tokens only, float32 on a CPU (bfloat16 autocast on a GPU), batches bucketed by
length, a checkpoint every few minutes; the same command resumes.

    python -m edge_tts.export.train.sft --base BASE.gguf --data gsm8k_train.jsonl --out RUN --minutes 60
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_tts.export.train.data import Problem, completion, read_problems, split, wrong_attempts
from edge_tts.prompts import PromptFormat

CHECKPOINT_SECONDS = 300
IGNORED = -100


@dataclass(frozen=True)
class SftConfig:
    """Hyper-parameters of one run.

    ``minutes`` bounds training time and the schedule follows it. Blocks below ``first_layer`` get no
    LoRA: nothing is back-propagated through them, which saves a sixth of the time.
    """

    minutes: float = 60.0
    learning_rate: float = 1.5e-3
    rank: int = 32
    alpha: int = 32
    first_layer: int = 8
    batch_size: int = 16
    revision_share: float = 0.12
    warmup: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of the text that follows it; only the latter carries loss."""

    prompt: list[int]
    target: list[int]


def encode(problem: Problem, attempts: Sequence[str], tokenizer: Any, prompts: PromptFormat) -> Example:
    """Tokenise one problem, with earlier wrong ``attempts`` in its context."""
    prompt = tokenizer.encode(prompts.render(problem.question, attempts), add_special_tokens=False)
    text = completion(problem.steps, problem.answer) + prompts.end
    return Example(prompt, tokenizer.encode(text, add_special_tokens=False))


def epochs(
    problems: Sequence[Problem], tokenizer: Any, prompts: PromptFormat, config: SftConfig
) -> Iterator[list[Example]]:
    """Yield batches for ever: each epoch reshuffled, bucketed by length, new wrong attempts drawn."""
    rng = random.Random(config.seed)
    while True:
        examples = []
        for problem in problems:
            revise = rng.random() < config.revision_share
            attempts = wrong_attempts(problem, rng.randint(1, 4), rng) if revise else []
            examples.append(encode(problem, attempts, tokenizer, prompts))
        rng.shuffle(examples)
        bucket = 40 * config.batch_size
        batches = []
        for start in range(0, len(examples), bucket):
            chunk = sorted(examples[start : start + bucket], key=lambda e: len(e.prompt) + len(e.target))
            batches += [chunk[i : i + config.batch_size] for i in range(0, len(chunk), config.batch_size)]
        rng.shuffle(batches)
        yield from batches


def collate(batch: Sequence[Example], pad: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-pad to (batch, longest): token ids, attention mask, labels (``IGNORED`` off target)."""
    longest = max(len(e.prompt) + len(e.target) for e in batch)
    ids = torch.full((len(batch), longest), pad)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, example in enumerate(batch):
        tokens = torch.tensor(example.prompt + example.target)
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, len(example.prompt) : len(tokens)] = tokens[len(example.prompt) :]
    return ids.to(device), mask.to(device), labels.to(device)


def answer_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over target tokens; the vocabulary projection runs on those alone."""
    hidden = model.base_model.model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    wanted = labels[:, 1:] != IGNORED
    logits = model.base_model.model.lm_head(hidden[:, :-1][wanted])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def load_base(gguf: Path) -> tuple[Any, Any]:
    """Load a Llama-family GGUF, dequantised to float32, with its tokenizer."""
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    return model, tokenizer


def with_lora(model: Any, config: SftConfig) -> Any:
    """Freeze the base and add LoRA matrices to the linear layers from ``first_layer`` up."""
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    layers = list(range(config.first_layer, model.config.num_hidden_layers))
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=modules, layers_to_transform=layers, lora_dropout=0.0
    )
    return get_peft_model(model, lora)


def train(base: Path, data: Path, out: Path, config: SftConfig) -> None:
    """Run or resume one fine-tuning run in ``out``; leaves ``out/adapter`` (PEFT) and ``out/log.jsonl``."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = load_base(base)
    model = with_lora(model, config).to(device)
    problems, _ = split(read_problems(data))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    state_file = out / "state.pt"
    step, spent, tokens = 0, 0.0, 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["lora"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        step, spent, tokens = state["step"], state["spent"], state["tokens"]
    batches = epochs(problems, tokenizer, PromptFormat(), config)
    for _ in range(step):
        next(batches)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    start, saved = time.monotonic() - spent, time.monotonic()
    while (spent := time.monotonic() - start) < config.minutes * 60:
        rate = schedule(spent / (config.minutes * 60), config.warmup)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate
        ids, mask, labels = collate(next(batches), tokenizer.pad_token_id or 0, device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = answer_loss(model, ids, mask, labels)
        loss.backward()
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
            model.save_pretrained(out / "adapter")
    save_state(state_file, model, optimiser, step, spent, tokens)
    model.save_pretrained(out / "adapter")


def schedule(progress: float, warmup: float) -> float:
    """Learning-rate factor at ``progress`` in [0, 1]: linear warm-up, then cosine to a tenth."""
    if progress < warmup:
        return progress / warmup + 0.01
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def save_state(path: Path, model: Any, optimiser: torch.optim.Optimizer, step: int, spent: float, tokens: int) -> None:
    """Write the resumable state of a run, atomically."""
    lora = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    state = {"lora": lora, "optimiser": optimiser.state_dict(), "step": step, "spent": spent, "tokens": tokens}
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base policy as GGUF")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    for name, default in asdict(SftConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    base, data, out = options.pop("base"), options.pop("data"), options.pop("out")
    train(base, data, out, SftConfig(**options))


if __name__ == "__main__":
    main()
