"""Confidence intervals of measured shares."""

from __future__ import annotations

from math import sqrt


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95% confidence interval of the share ``right / total``, in [0, 1] (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)
