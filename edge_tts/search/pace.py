"""How fast samples come, so that a search with little time left draws no more of them at once than it can finish."""

from __future__ import annotations

from dataclasses import dataclass

FINISHING_SHARE = 0.5
"""Part of the time left in which samples drawn together should end: some are longer than usual, and predictions err."""


PREDICTED_SHARE = 1 / 3
"""How much of a predicted speed is counted on: predictions are for an idle machine."""


@dataclass
class Pace:
    """The speed of a policy in samples that run side by side."""

    tokens_per_second: float
    """Predicted at first; what was measured last once there is something. Above 0."""

    def measured(self, tokens: int, seconds: float) -> None:
        """Take the speed at which ``tokens`` were evaluated in ``seconds``."""
        if tokens > 0 and seconds > 0:
            self.tokens_per_second = tokens / seconds

    def at_once(self, count: int, tokens: float, seconds_left: float) -> int:
        """How many of ``count`` samples of ``tokens`` tokens each to draw together; at least 1.

        All where all end in time, else as many as end in ``FINISHING_SHARE`` of it.
        """
        possible = seconds_left * self.tokens_per_second / tokens
        return count if possible >= count else max(1, int(FINISHING_SHARE * possible))
