"""What was fitted for a model: how its answers are judged and when a search with it stops, for each format.

``bench controller`` makes the file; it is shipped with a catalogued model, or lies in a pack as ``controller.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_tts.errors import InputError, PackError
from edge_tts.files.typed import typed
from edge_tts.reasoning.formats import FormatName
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.selection import Aggregate

FORMAT = 1


@dataclass(frozen=True)
class Fit:
    """For questions asked in one format. Raises InputError for values out of range."""

    calibration: Calibration = field(default_factory=Calibration)
    pacing: Pacing = field(default_factory=Pacing)
    other: FormatName | None = None
    """The format an unsure question is also asked in."""
    other_weight: float = 1.0
    """How much a vote in that format counts beside one of the usual format; above 0."""

    def __post_init__(self) -> None:
        if not self.other_weight > 0:
            raise InputError(f"other_weight must be above 0; got {self.other_weight:g}")

    def controller(self, n: int, scored: bool, how: Aggregate = "last", ways: int = 1) -> Controller:
        """A controller of at most ``n`` samples; ``scored``: whether a verifier reads them."""
        calibration = self.calibration.where(scored)
        return Controller(n, calibration, self.pacing, how, calibration.weighs(scored), ways)


@dataclass(frozen=True)
class _File:
    format: int
    fits: dict[FormatName, Fit]
    evidence: dict[str, Any] = field(default_factory=dict)


def parse(content: Mapping[str, Any] | None) -> dict[FormatName, Fit]:
    """The fits in ``content``, a JSON object, by format; none for None. Raises PackError where it is not valid."""
    if content is None:
        return {}
    if content.get("format") != FORMAT:
        raise PackError(f"the controller's fit has format {content.get('format')!r} and this version reads {FORMAT}")
    return typed(_File, content, "the controller's fit", PackError).fits
