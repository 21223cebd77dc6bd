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
        left, values, right = truncated(change, rank)
        root = values.sqrt()
        prefix = "base_model.model." + name.removesuffix(".weight")
        weights[f"{prefix}.lora_A.default.weight"].data = root[:, None] * right
        weights[f"{prefix}.lora_B.default.weight"].data = left * root
        kept += float(values.square().sum())
        total += float(change.square().sum())
    adapted.save_pretrained(str(out))
    return kept / total


def truncated(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``rank`` largest singular values of ``matrix``, between their left vectors (columns) and right ones (rows).

    Where ``rank`` is small against the matrix, random projections find them in a fraction of the time.
    """
    if 4 * rank > min(matrix.shape):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    torch.manual_seed(0)
    left, values, right = torch.svd_lowrank(matrix, q=2 * rank, niter=4)
    return left[:, :rank], values[:rank], right[:, :rank].T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the GGUF that was fine-tuned")
    parser.add_argument("--model", type=Path, required=True, help="the fine-tuned model, as transformers saves it")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the matrices are small, and on a busy machine several threads wait for each other
    kept = extract(options.base, options.model, options.rank, options.out)
    print(f"rank {options.rank} keeps {kept:.1%} of the change's energy")


if __name__ == "__main__":
    sys.exit(command.run(main))
