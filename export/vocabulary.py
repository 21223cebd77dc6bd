"""Tokenizers for questions and equation steps, cut down from a base model's: WordPiece and byte-level BPE.

Two thirds of a small model's bytes are the embeddings of words it will never read. What is kept still
spells any text: of WordPiece every single character below ``LAST_CHARACTER`` stays, as a word and as a
piece; of byte-level BPE every byte.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
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


def trim_bpe(source: Path, texts: Iterable[str], size: int) -> tuple[str, list[int]]:
    """Cut the byte-level BPE tokenizer at ``source`` (a tokenizer.json) to at most ``size`` tokens.

    What is kept says :func:`kept_tokens`; the marks that end a step are added. Returns the new
    tokenizer.json as text and, for each new id, the old id whose embedding it takes, a mark's being a
    letter's. Raises InputError for another kind of tokenizer.
    """
    spec: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    if spec["model"]["type"] != "BPE" or spec["model"].get("byte_fallback"):
        raise InputError(f"{source} is no byte-level BPE tokenizer; the base of a truncated policy needs one")
    spec |= {"truncation": None, "padding": None, "post_processor": None}
    marks = [*SOURCE_MARKS, *RESULT_MARKS]
    full = Tokenizer.from_str(json.dumps(spec))
    ids_kept = kept_tokens(full, texts, size - len(marks))
    order = [full.id_to_token(i) for i in ids_kept]
    kept = set(order)
    ids = {token: i for i, token in enumerate([*order, *marks])}
    spec["model"]["vocab"] = {token: i for token, i in ids.items() if token in spec["model"]["vocab"]}
    spec["model"]["merges"] = [pair for pair in _merges(spec) if kept.issuperset((*pair, "".join(pair)))]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    spec["added_tokens"] += [{"content": mark, **plain, "special": True} for mark in marks]
    spec["added_tokens"] = [{**token, "id": ids[token["content"]]} for token in spec["added_tokens"]]
    old_ids = [*ids_kept, *(full.token_to_id(letter) for letter in ascii_lowercase[: len(marks)])]
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":")), old_ids


def kept_tokens(full: Tokenizer, texts: Iterable[str], size: int) -> list[int]:
    """Ids, ascending, of at most ``size`` tokens that stay of the byte-level BPE ``full``.

    In this order of preference: added tokens and bytes, tokens of ``texts`` by frequency, the rest by id
    (which follows the merges, from frequent to rare). A token stays only together with all that its merge
    is made of. A text whose tokens all stay is hence split as before: no merge of it is missing, and fewer
    others compete.
    """
    spec = json.loads(full.to_str())
    vocabulary = full.get_vocab()
    seen = Counter(token for text in texts for token in full.encode(text, add_special_tokens=False).tokens)
    parts = {first + second: (first, second) for first, second in _merges(spec)}
    kept = {token["content"] for token in spec["added_tokens"]} | {token for token in vocabulary if len(token) == 1}
    for token in (*(token for token, _ in seen.most_common()), *sorted(vocabulary, key=vocabulary.__getitem__)):
        new = set(_made_of(token, parts)) - kept
        if len(kept) + len(new) <= size:
            kept |= new
    return sorted(vocabulary[token] for token in kept)


def _merges(spec: dict[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in spec["model"]["merges"]]


def _made_of(token: str, parts: dict[str, tuple[str, str]]) -> Iterator[str]:
    """``token`` and every token on the way to it from single bytes."""
    yield token
    for part in parts.get(token, ()):
        yield from _made_of(part, parts)


def _is_character(token: str) -> bool:
    character = token.removeprefix("##")
    return len(character) == 1 and character < LAST_CHARACTER
