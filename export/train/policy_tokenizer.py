"""A policy's tokenizer, and the choice of the tokens that a pack keeps of it.

    python -m edge_tts.export.train.policy_tokenizer --base BASE.gguf --data gsm8k_train.jsonl --size 16384 \\
        --out vocabulary.json

Tokens that a policy reads and writes come first, then the others in the tokenizer's own order, from frequent to rare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import decoders, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edge_tts.export import command
from edge_tts.export.train.data import read_problems
from edge_tts.export.vocabulary import kept_tokens
from edge_tts.files.gguf import open_gguf
from edge_tts.reasoning.prompts import PromptFormat


def load_tokenizer(gguf: Path) -> Any:
    """The tokenizer inside a SmolLM GGUF, corrected to be the one that the model's authors publish.

    transformers reads it from a GGUF without the splitting of digits, with byte fallback and with a start token; a
    model saved like that would be converted back with another type of vocabulary.
    """
    loaded = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)  # type: ignore[no-untyped-call]
    backend = loaded.backend_tokenizer
    backend.model.byte_fallback = False
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = None
    fields = open_gguf(gguf)
    tokens, kinds = (fields.get_field(f"tokenizer.ggml.{name}").contents() for name in ("tokens", "token_type"))
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    end = PromptFormat().end
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token=end, pad_token=end, additional_special_tokens=control
    )


def vocabulary(base: Path, data: Path, size: int) -> list[int]:
    """Ids of at most ``size`` tokens of the policy ``base`` to keep, ascending, chosen on the problems in ``data``."""
    prompts = PromptFormat()
    texts = [
        prompts.render(p.question, ["\n".join(p.steps)]) + f"{prompts.answer_marker}{p.answer}{prompts.end}"
        for p in read_problems(data)
        if not p.held_out
    ]
    return kept_tokens(load_tokenizer(base).backend_tokenizer, texts, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base policy as GGUF")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--out", type=Path, required=True, help="JSON list to write")
    options = parser.parse_args()
    kept = vocabulary(options.base, options.data, options.size)
    options.out.write_text(json.dumps(kept), encoding="utf-8")
    print(f"{len(kept)} tokens, the last one {kept[-1]}")


if __name__ == "__main__":
    sys.exit(command.run(main))
