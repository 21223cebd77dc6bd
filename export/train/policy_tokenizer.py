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

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from edge_tts.core import SpecialToken
from edge_tts.export import command
from edge_tts.export.train.data import read_problems
from edge_tts.export.vocabulary import kept_tokens
from edge_tts.files.gguf_header import read_header
from edge_tts.packs.gguf_tokenizer import tokenizer_json
from edge_tts.reasoning.prompts import PromptFormat


def load_tokenizer(gguf: Path) -> Any:
    """The tokenizer inside a SmolLM or Qwen2 GGUF. (What transformers reads there splits numbers otherwise.)"""
    backend = Tokenizer.from_str(tokenizer_json(gguf))
    control = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    end = PromptFormat().end
    template = read_header(gguf).get("tokenizer.chat_template")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        eos_token=end,
        pad_token=end,
        additional_special_tokens=control,
        chat_template=template,
    )


class PolicyVocabulary:
    """A tokenizer of :func:`load_tokenizer` as prompts need it (``reasoning.prompt_tokens.Vocabulary``)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def special(self, token: int) -> SpecialToken | None:
        """``token`` where it is a control token, else None."""
        known = self._tokenizer.added_tokens_decoder.get(token)
        return SpecialToken(token, known.content, known.lstrip, known.rstrip) if known else None

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        """Token ids; with ``special``, control tokens written in ``text`` are recognised."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special))


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
