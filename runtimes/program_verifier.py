"""Step scores of programs from what their lines give away (:mod:`edge_tts.reasoning.program_signs`); needs no network.

Two logistic regressions weigh the signs: one of programs that have their ``answer``, one of programs that are still
being written. They were fitted by :mod:`edge_tts.export.train.fit_signs` on soft labels, so a score is the probability
that the finished program is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from edge_tts.cancellation import Cancellation
from edge_tts.core import ModelInfo, Scored
from edge_tts.errors import PackError
from edge_tts.files.typed import typed
from edge_tts.reasoning.program_signs import is_complete, signs

FORMAT = 1
BIAS = "bias"
REMEMBERED = 4096
"""Programs whose scores are kept: samples share their first lines."""


@dataclass(frozen=True)
class SignWeights:
    """The two regressions: a weight for each sign, and the ``bias``."""

    complete: Mapping[str, float]
    growing: Mapping[str, float]

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The weights in ``content``, a JSON object. Raises PackError where it is not valid."""
        found = typed(_File, dict(content), "the program verifier's fit", PackError)
        known = {BIAS, *signs("", ())}
        if found.format != FORMAT or not {*found.complete, *found.growing} <= known:
            raise PackError(
                f"the program verifier's fit has format {found.format} and this version reads {FORMAT}, with weights "
                f"of {', '.join(sorted(known))}; fit it again"
            )
        return cls(found.complete, found.growing)


@dataclass(frozen=True)
class _File:
    format: int
    complete: dict[str, float]
    growing: dict[str, float]
    evidence: dict[str, Any] = field(default_factory=dict)


class ProgramVerifier:
    """A :class:`~edge_tts.core.Verifier` of the program format; it has no model, so it charges no tokens."""

    def __init__(self, weights: SignWeights) -> None:
        parameters = len(weights.complete) + len(weights.growing)
        self.info = ModelInfo("program signs", parameters, 2**20, "cpu", "it is arithmetic on a few counts")
        self._weights = weights
        self._score = lru_cache(REMEMBERED)(self._probability)

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        found: list[Scored] = []
        for steps in map(tuple, traces):
            if cancel is not None and cancel.requested:
                break
            found.append(Scored(tuple(self._score(question, steps[:n]) for n in range(1, len(steps) + 1)), 0))
        return found

    def seconds(self, tokens: int) -> float:
        return 0.0

    def close(self) -> None:
        self._score.cache_clear()

    def _probability(self, question: str, steps: tuple[str, ...]) -> float:
        weights = self._weights.complete if is_complete(steps) else self._weights.growing
        found = {BIAS: 1.0, **signs(question, steps)}
        logit = math.fsum(weight * found[name] for name, weight in weights.items())
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))
