"""A WordPiece tokenizer for questions and equation steps, cut down from MiniLM's.

Two thirds of a small encoder's bytes are the embeddings of words it will never read. What is kept
still spells any text: every single character below ``LAST_CHARACTER`` stays, as a word and as a piece.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.runtimes.chunks import RESULT_MARKS, SOURCE_MARKS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LAST_CHARACTER = "\u2300"
"""Latin, Greek, Cyrillic, punctuation, currency and mathematical signs come before it."""

NORMALISATION: list[tuple[str, str]] = [
    (r"####", " answer "),  # one token instead of four
    (r"(?<=\d),(?=\d\d\d(?!\d))", ""),  # 1,200 in a question is 1200 in a step
    (r"(?<=\d)\.00(?!\d)", ""),  # $5.00 is 5
    (r"(?<=\d\.\d)0(?!\d)", ""),  # $1.50 is 1.5
    (r"(?<!\d)\.(?=\d)", "0."),  # .5 is 0.5
]
"""Regular expressions and replacements that let a number look the same in question and steps."""


def trim_tokenizer(source: Path, texts: Iterable[str], size: int) -> tuple[str, list[int]]:
    """Cut the tokenizer at ``source`` (a tokenizer.json) to ``size`` tokens.

    Kept, in this order of preference: special tokens, single characters, number pieces, tokens of
    ``texts`` by frequency, the rest by id (BERT's ids of words follow their frequency). The marks that
    end a step are added. Returns the new tokenizer.json as text and, for each new id, the old id whose
    embedding it starts from: a mark's is a letter's, for marks that start alike hardly learn to differ.
    Raises InputError for a tokenizer that is not WordPiece.
    """
    spec: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    if spec["model"]["type"] != "WordPiece":
        raise InputError(f"{source} is a {spec['model']['type']} tokenizer; a WordPiece one is needed")
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    spec |= {"truncation": None, "padding": None, "post_processor": None}
    replacements = [{"type": "Replace", "pattern": {"Regex": r}, "content": to} for r, to in NORMALISATION]
    spec["normalizer"] = {"type": "Sequence", "normalizers": [*replacements, spec["normalizer"]]}
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in SPECIAL]
    full = Tokenizer.from_str(json.dumps(spec))
    seen = Counter(token for text in texts for token in full.encode(text, add_special_tokens=False).tokens)
    order = [
        *SPECIAL,
        *(token for token in vocabulary if _is_character(token)),
        *(token for token in vocabulary if re.fullmatch(r"(##)?[0-9]+", token)),
        *(token for token, _ in seen.most_common()),
        *(token for token in vocabulary if re.fullmatch(r"(##)?[a-z]+", token)),
    ]
    marks = [*SOURCE_MARKS, *RESULT_MARKS]
    kept = sorted(list(dict.fromkeys(order))[: size - len(marks)], key=vocabulary.__getitem__)
    ids = {token: i for i, token in enumerate([*kept, *marks])}
    spec["model"]["vocab"] = ids
    template = spec["added_tokens"][0]
    spec["added_tokens"] = [{**template, "id": ids[token], "content": token} for token in [*SPECIAL, *marks]]
    old_ids = [vocabulary[token] for token in [*kept, *ascii_lowercase[: len(marks)]]]
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":")), old_ids


def _is_character(token: str) -> bool:
    character = token.removeprefix("##")
    return len(character) == 1 and character < LAST_CHARACTER
