"""The metadata of a GGUF model whose vocabulary is cut: fewer rows to multiply with for every token drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edge_tts.errors import PackError

VOCABULARY_KEY = "edge_tts.vocabulary"
"""Adapter metadata: ids of the base's tokens that stay, ascending."""

_PER_TOKEN = tuple(f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores"))
_MERGES = "tokenizer.ggml.merges"


@dataclass(frozen=True)
class Cut:
    """What stays of a vocabulary whose tokens are named ``tokens``: those with the ids ``kept``, ascending."""

    kept: list[int]
    tokens: Sequence[str]

    def __post_init__(self) -> None:
        """Raises PackError where ``kept`` are not ids in ascending order."""
        bounds = [-1, *self.kept, len(self.tokens)]
        if any(a >= b for a, b in pairwise(bounds)):
            raise PackError(
                f"the vocabulary to keep is no ascending list of ids below {len(self.tokens)}; "
                "use an adapter made for this base"
            )

    def metadata(self, name: str, value: Any) -> Any:
        """The metadata field ``name`` of the cut model. Raises PackError where it names a token that went."""
        if name in _PER_TOKEN:
            return [value[i] for i in self.kept]
        if name == _MERGES:
            names = {self.tokens[i] for i in self.kept}
            return [pair for pair in value if names.issuperset((*pair.split(" "), pair.replace(" ", "")))]
        if name.endswith(".vocab_size"):
            return len(self.kept)
        if name.startswith("tokenizer.") and name.endswith("_token_id"):
            if value not in self.kept:
                raise PackError(f"the vocabulary to keep lacks token {value}, the model's {name}; keep it")
            return self.kept.index(value)
        return value
