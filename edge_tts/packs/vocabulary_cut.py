"""Cut the vocabulary in a GGUF model's metadata. A smaller output matrix makes every generated token cheaper."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edge_tts.errors import PackError

VOCABULARY_KEY = "edge_tts.vocabulary"
"""Key of an adapter's metadata: ids of the base's tokens to keep, ascending."""

_PER_TOKEN = tuple(f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores"))
_MERGES = "tokenizer.ggml.merges"


@dataclass(frozen=True)
class Cut:
    """Keep the tokens with the ids ``kept``, ascending, of a vocabulary whose tokens are written ``tokens``."""

    kept: list[int]
    tokens: Sequence[str]

    def __post_init__(self) -> None:
        """Raise PackError unless ``kept`` are ids of ``tokens`` in ascending order."""
        bounds = [-1, *self.kept, len(self.tokens)]
        if any(a >= b for a, b in pairwise(bounds)):
            raise PackError(
                f"the tokens to keep must be an ascending list of ids below {len(self.tokens)}, "
                f"found {reprlib.repr(self.kept)}; use an adapter made for this base"
            )

    def metadata(self, name: str, value: Any) -> Any:
        """The metadata field ``name`` of the cut model. Raises PackError where its value is a token that was cut."""
        if name in _PER_TOKEN:
            return [value[i] for i in self.kept]
        if name == _MERGES:
            names = {self.tokens[i] for i in self.kept}
            return [pair for pair in value if names.issuperset((*pair.split(" "), pair.replace(" ", "")))]
        if name.endswith(".vocab_size"):
            return len(self.kept)
        if name.startswith("tokenizer.") and name.endswith("_token_id"):
            if value not in self.kept:
                raise PackError(f"the tokens to keep must include {value}, the model's {name}; add it")
            return self.kept.index(value)
        return value
