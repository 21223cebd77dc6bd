"""A fully fine-tuned model as a LoRA adapter of its base: truncated SVD of the weight change.

The best approximation of a matrix by one of rank r is its truncated singular value decomposition
(Eckart and Young 1936), so a full fine-tuning can be shipped as a few megabytes.

    python -m edge_tts.export.train.extract --base BASE.gguf --model RUN2/model --rank 64 --out RUN2/adapter
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from edge_tts.export import command
from edge_tts.export.train.sft import load_base


def extract(base: Path, tuned: Path, rank: int, out: Path) -> float:
    """Write the PEFT adapter ``out``; returns the share in [0, 1] of the change's energy that it keeps."""
    before, _ = load_base(base)
    after = AutoModelForCausalLM.from_pretrained(str(tuned), dtype=torch.float32).state_dict()
    changes = {
        name: after[name] - weight
        for name, weight in before.named_parameters()
        if ".layers." in name and "proj" in name
    }
    targets = sorted({name.split(".")[-2] for name in changes})
    adapted = get_peft_model(before, LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, lora_dropout=0.0))
    weights = dict(adapted.named_parameters())
    kept = total = 0.0
    for name, change in changes.items():
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        root = values[:rank].sqrt()
        prefix = "base_model.model." + name.removesuffix(".weight")
        weights[f"{prefix}.lora_A.default.weight"].data = root[:, None] * right[:rank]
        weights[f"{prefix}.lora_B.default.weight"].data = left[:, :rank] * root
        kept += float((values[:rank] ** 2).sum())
        total += float((values**2).sum())
    adapted.save_pretrained(str(out))
    return kept / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the GGUF that was fine-tuned")
    parser.add_argument("--model", type=Path, required=True, help="the fine-tuned model, as transformers saves it")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    kept = extract(options.base, options.model, options.rank, options.out)
    print(f"rank {options.rank} keeps {kept:.1%} of the change's energy")


if __name__ == "__main__":
    sys.exit(command.run(main))
