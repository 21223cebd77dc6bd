"""Byte-level BPE tokenizers cut down to the tokens that a task needs.

Two thirds of a small model's bytes are the embeddings of words it will never read. A cut tokenizer still spells any
text: every single byte stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export.checkpoint import read_config
from edge_tts.runtimes.step_marks import MARKS


def trim_bpe(source: Path, texts: Iterable[str], size: int, marks: Sequence[str] = MARKS) -> tuple[str, list[int]]:
    """Cut the byte-level BPE tokenizer at ``source`` (a tokenizer.json) to at most ``size`` tokens.

    :func:`kept_tokens` chooses them; the ``marks`` that end a step are added. Returns the new tokenizer.json as text
    and, for each new id, the old id whose embedding it starts with; that of a mark is a letter's. Raises InputError
    for another kind of tokenizer.
    """
    spec = read_config(source)
    if spec["model"]["type"] != "BPE" or spec["model"].get("byte_fallback"):
        raise InputError(f"{source} is no byte-level BPE tokenizer; the base of a truncated policy needs one")
    spec |= {"truncation": None, "padding": None, "post_processor": None}
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
    """Ids, ascending, of the at most ``size`` tokens to keep of the byte-level BPE ``full``.

    In this order of preference: added tokens and bytes, tokens of ``texts`` by frequency, the rest by id (ids follow
    the merges, from frequent to rare). A token is kept only together with all tokens that it is merged from. So a text
    whose tokens are all kept is split as before: none of its merges is missing, and fewer others compete.
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
    """``token`` and every token that it is merged from, down to single bytes."""
    yield token
    for part in parts.get(token, ()):
        yield from _made_of(part, parts)
