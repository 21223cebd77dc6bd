"""From the pieces of a prompt to tokens: special tokens count in the template's own text only.

Ordinary questions give exactly the tokens that the whole text would give: text between two special tokens is
tokenised in one go, wherever in it a message begins, since tokenizers join letters, spaces and line breaks over
such borders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from edge_tts.core import SpecialToken
from edge_tts.errors import PackError
from edge_tts.reasoning.chat_template import Piece


class Vocabulary(Protocol):
    """What has to be known of a model's tokenizer."""

    def tokenize(self, text: str, special: bool) -> Sequence[int]:
        """Token ids; with ``special``, control tokens written in ``text`` are recognised. Adds none."""

    def special(self, token: int) -> SpecialToken | None:
        """``token`` where it is a control token, else None."""


def prompt_tokens(pieces: Sequence[Piece], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens of a prompt. A control token comes from control pieces only.

    Raises PackError where the vocabulary has none for any of the text.
    """
    known: dict[str, SpecialToken] = {}
    for piece in pieces:
        if piece.control:
            found = [vocabulary.special(token) for token in dict.fromkeys(vocabulary.tokenize(piece.text, True))]
            known.update({special.text: special for special in found if special})
    tokens: list[int] = []
    run = ""
    strip_next = False
    for part in _parts(pieces, known):
        if isinstance(part, str):
            run += part
            continue
        tokens += _plain(run, strip_next, part.strips_left, vocabulary)
        tokens.append(part.token)
        run, strip_next = "", part.strips_right
    tokens += _plain(run, strip_next, False, vocabulary)
    if not tokens:
        raise PackError("the model's vocabulary has no tokens for the prompt; take another GGUF of this model")
    return tuple(tokens)


def _parts(pieces: Sequence[Piece], known: dict[str, SpecialToken]) -> Iterator[str | SpecialToken]:
    """The text of ``pieces`` with the special tokens of control pieces cut out."""
    longest_first = sorted(filter(None, known), key=len, reverse=True)
    cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
    for piece in pieces:
        if piece.control and cut:
            yield from (known.get(part, part) for part in cut.split(piece.text) if part)
        else:
            yield piece.text


def _plain(text: str, strip_left: bool, strip_right: bool, vocabulary: Vocabulary) -> Sequence[int]:
    if strip_left:
        text = text.lstrip()
    if strip_right:
        text = text.rstrip()
    return vocabulary.tokenize(text, False) if text else ()
