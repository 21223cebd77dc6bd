"""Figures in units that people read."""

from __future__ import annotations

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def duration(seconds: float) -> str:
    """ "0.35 s", "1.2 s", "45 s" or "2 min 5 s"."""
    if round(seconds) >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    digits = 2 if seconds < 0.995 else 1 if seconds < 9.95 else 0
    return f"{seconds:.{digits}f} s"


def flops(count: float) -> str:
    """Floating-point operations in two digits or more: "6.5 GFLOP", "65 GFLOP", "650 GFLOP"."""
    power = 0
    while count >= 999.5 and power < len(_PREFIXES) - 1:
        count /= 1000
        power += 1
    return f"{count:.{1 if 0 < count < 9.95 else 0}f} {_PREFIXES[power]}FLOP"
