"""How long a tick of the engine takes, from the ticks so far."""

from __future__ import annotations


class TickTimes:
    """Moving averages of seconds, by the binary order of magnitude of a tick's tokens."""

    def __init__(self, most: int) -> None:
        """``most`` is the most tokens of a tick."""
        self._most = most
        self._seconds: dict[int, float] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        bucket = tokens.bit_length()
        known = self._seconds.get(bucket, seconds)
        self._seconds[bucket] = 0.7 * known + 0.3 * seconds

    def predicted(self, tokens: int) -> float:
        """Seconds of a tick over about ``tokens`` tokens; 0 before the first."""
        bucket = min(max(tokens, 1), self._most).bit_length()
        if bucket in self._seconds:
            return self._seconds[bucket]
        nearest = min(self._seconds, key=lambda b: abs(b - bucket), default=None)
        return self._seconds[nearest] if nearest is not None else 0.0
