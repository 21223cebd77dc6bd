"""Figures in units that people read."""

from __future__ import annotations

import re

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*min)?\s*(?:(\d+(?:\.\d+)?)\s*s?)?", re.IGNORECASE)


def duration(seconds: float) -> str:
    """ "0.35 s", "1.2 s", "45 s" or "2 min 5 s"."""
    if round(seconds) >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    digits = 2 if seconds < 0.995 else 1 if seconds < 9.95 else 0
    return f"{seconds:.{digits}f} s"


def seconds_of(text: str) -> float | None:
    """What ``text`` such as "45", "45 s", "2 min" or "2 min 5 s" means in seconds; None where it is no duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    return 60 * float(found[1] or 0) + float(found[2] or 0)


def file_size(count: int) -> str:
    """A number of bytes as downloads are told: "491 MB", "1.1 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 999_500_000 else f"{count / 1e6:.0f} MB"


def flops(count: float) -> str:
    """Floating-point operations in two digits or more: "6.5 GFLOP", "65 GFLOP", "650 GFLOP"."""
    power = 0
    while count >= 999.5 and power < len(_PREFIXES) - 1:
        count /= 1000
        power += 1
    return f"{count:.{1 if 0 < count < 9.95 else 0}f} {_PREFIXES[power]}FLOP"
