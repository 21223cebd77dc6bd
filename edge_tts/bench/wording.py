"""How a report formats its figures."""

from __future__ import annotations

from typing import Literal, Protocol

from edge_tts.bench.figures import Share

Verdict = Literal["win", "loss", "undecided"]
"""On which side of "no difference" the whole interval lies."""


class Interval(Protocol):
    """The interval of a share, a saving or a difference."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def verdict(interval: Interval, none: float) -> Verdict:
    """The verdict of an interval; ``none`` is the value that means no difference."""
    if interval.low > none:
        return "win"
    return "loss" if interval.high < none else "undecided"


def number(value: float | None) -> str:
    """Two decimals below 10, one below 100, none above; a dash for None."""
    if value is None:
        return "\u2013"
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def times(value: float) -> str:
    return f"{number(value)}\u00d7"


def span(interval: Interval) -> str:
    """The interval of a factor."""
    return f"{number(interval.low)} to {number(interval.high)}"


def percent(value: float) -> str:
    return f"{value:.1%}"


def percent_span(share: Share) -> str:
    """The interval of a share, without the sign."""
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def share_text(share: Share) -> str:
    return f"{percent(share.value)} ({percent_span(share)})"


def signed_points(value: float) -> str:
    """A difference of shares in percentage points, always with a sign."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def large(value: float | None) -> str:
    """A number of parameters."""
    if value is None:
        return number(value)
    return f"{value / 1e9:.3g}B" if value >= 1e9 else f"{value / 1e6:.3g}M"


def count(amount: int, one: str, more: str) -> str:
    return f"{amount} {one if amount == 1 else more}"


def named_at(strategy: str, budget: int) -> str:
    """A strategy with its budget, where it has more than one."""
    return strategy if budget == 1 else f"{strategy} at {budget}"


def flops(value: float) -> str:
    return f"{number(value / 1e12)} TFLOP" if value >= 1e12 else f"{number(value / 1e9)} GFLOP"
