"""How the plots of a report are drawn: lines with intervals and labels at their ends, bars, a look for each strategy.

Everything is sized for a phone: a chart is 360 points wide, of which a screen of that many pixels shows labels at 10
pixels or more.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

from edge_tts.bench.figures import Matched, Saving, Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

INK = "#1c1c1c"
_SOFT_INK = "#3a3a3a"
_LINES = "#9a9a96"
_LARGER_MODEL, _SMALL_MODEL = "#a3a39d", "#4f6d8f"

SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so labels are as wide on every machine
    "font.size": 11,
    "text.parse_math": False,  # names may hold a dollar sign
    "text.color": INK,
    "axes.edgecolor": _LINES,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": _SOFT_INK,
    "axes.labelsize": 11,
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "#fcfcfa",
    "figure.dpi": 72,
    "grid.color": "#e4e4df",
    "xtick.color": _LINES,
    "xtick.labelcolor": _SOFT_INK,
    "ytick.labelcolor": _SOFT_INK,
    "ytick.left": False,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
}
"""Of matplotlib, whose releases differ in how they type the keys."""

_WIDTH, _HEIGHT = 360, 310
_TOP, _BOTTOM, _LEFT = 50, 48, 42
_CHARACTER, _LINE = 6.5, 14
"""Width of the average character of a label and height of its lines, in points."""

_ROUND = (1, 2, 5, 10)
"""Steps between ticks."""

# At least 19 apart in CIELAB to normal sight and to each kind of colour blindness (simulated after Machado et al.
# 2009), and at least 2.9:1 against the paper.
_LOOKS = {
    "greedy": ("#6a6a6a", "X"),
    "majority": ("#1f26b4", "o"),
    "adaptive": ("#878bea", "s"),
    "best-of-n": ("#df7b00", "^"),
    "weighted": ("#700c00", "D"),
    "beam": ("#0c5f32", "v"),
    "lookahead": ("#00a6a5", "P"),
    "dvts": ("#816015", "<"),
    "revise": ("#ad40ad", ">"),
    "auto": ("#631845", "p"),
}
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
_MARKERS = "oDs^vPX<>p"


@dataclass(frozen=True)
class Look:
    """How a line is told from others."""

    colour: str
    marker: str
    dash: Any = "-"
    width: float = 1.7
    size: float = 5.5
    """Of the marker."""


@dataclass(frozen=True)
class Series:
    """A line and its label, of one line of text or more."""

    label: str
    look: Look
    x: tuple[float, ...]
    y: tuple[Share, ...]
    hollow: tuple[bool, ...] = ()
    """Which points are marked as beaten."""

    @classmethod
    def of(cls, label: str, look: Look, points: Iterable[tuple[float, Share]]) -> Self:
        """From (x, y), in the order in which they are joined."""
        x, y = zip(*points, strict=True)
        return cls(label, look, x, y)


@dataclass(frozen=True)
class Axis:
    """The quantity from left to right. ``ticks`` name the values 0, 1, 2 and so on instead of numbers."""

    label: str
    scale: Literal["log", "linear", "ratio"] = "log"
    """"ratio" is logarithmic too, with 1 written as 1:1."""
    ticks: tuple[str, ...] = ()


def looks_of(strategies: Iterable[str]) -> dict[str, Look]:
    """A look for every strategy: the colour of its kind, and for settings of one kind a dash and marker each."""
    looks: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for strategy in strategies:
        kind = strategy.split(":")[0]
        number = seen[kind] = seen.get(kind, -1) + 1
        colour, marker = _LOOKS.get(kind, (_SOFT_INK, "h"))
        marker = _MARKERS[(_MARKERS.index(marker) + 3 * number) % len(_MARKERS)] if number else marker
        looks[strategy] = Look(colour, marker, _DASHES[number % len(_DASHES)])
    return looks


def rising_looks(count: int) -> list[Look]:
    """Looks for an ordered set of lines, from dark to light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    steps = [0.7 * number / max(1, count - 1) for number in range(count)]  # what lies above 0.7 is too pale
    return [Look(to_hex(colormaps["plasma"](x)), _MARKERS[i % len(_MARKERS)]) for i, x in enumerate(steps)]


def draw_lines(title: str, axis: Axis, series: Sequence[Series], whiskers: bool = False) -> tuple[Figure, Axes]:
    """A chart of shares with their intervals, as bands or whiskers; lines are labelled at the right, by height."""
    widest = max(len(line) for s in series for line in s.label.split("\n"))
    figure, axes = _paper(title, right=min(28 + _CHARACTER * widest, 0.42 * _WIDTH))
    if axis.ticks and whiskers:
        series = _side_by_side(series)
    _scale(axes, axis, series)
    for s in series:
        values, low, high = ([getattr(share, name) for share in s.y] for name in ("value", "low", "high"))
        if whiskers or len(s.x) == 1:
            axes.vlines(s.x, low, high, color=s.look.colour, alpha=0.45, linewidth=1.2)
        else:
            axes.fill_between(s.x, low, high, color=s.look.colour, alpha=0.09, linewidth=0)
        axes.plot(
            s.x,
            values,
            color=s.look.colour,
            linestyle=s.look.dash,
            linewidth=s.look.width,
            alpha=0.5 if s.hollow else 1,
        )
        for hollow in (True, False):
            some = [i for i in range(len(s.x)) if (s.hollow[i] if s.hollow else False) == hollow]
            axes.plot(
                [s.x[i] for i in some],
                [values[i] for i in some],
                s.look.marker,
                color=s.look.colour,
                markersize=s.look.size,
                clip_on=False,
                markerfacecolor=figure.get_facecolor() if hollow else s.look.colour,
            )
    _label_ends(axes, series)
    return figure, axes


def draw_arrow(axes: Axes, saving: Saving, colour: str) -> None:
    """From what the allocation costs to what the baseline does, at the accuracy that both reach; in GFLOP."""
    axes.annotate(
        "",
        xy=(saving.baseline_cost / 1e9, saving.accuracy),
        xytext=(saving.optimal_cost / 1e9, saving.accuracy),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.3,head_length=0.6",
            "color": colour,
            "linewidth": 1.6,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        annotation_clip=False,
    )


def draw_bars(title: str, rows: Sequence[Matched]) -> Figure:
    """Pairs of bars: the larger model, and the small one with as much compute."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    labels = [f"R = {row.ratio:g}\n" + "\n".join(textwrap.wrap(row.strategy, 16)) for row in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = _paper(title, right=8, top=_TOP + 2.5 * _LINE, bottom=12 + lines * _LINE)
    for place, row in enumerate(rows):
        axes.bar(place - 0.2, row.larger_accuracy, 0.36, color=_LARGER_MODEL)
        axes.bar(place + 0.2, row.accuracy.value, 0.36, color=_SMALL_MODEL)
        axes.vlines(place + 0.2, row.accuracy.low, row.accuracy.high, color=INK, linewidth=1.4)
        for x, value, top in (
            (place - 0.2, row.larger_accuracy, row.larger_accuracy),
            (place + 0.2, row.accuracy.value, row.accuracy.high),
        ):
            axes.annotate(
                f"{100 * value:.0f}%", (x, top), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=11
            )
    axes.set_xticks(range(len(rows)), labels, fontsize=11)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.12 * max(max(row.larger_accuracy, row.accuracy.high) for row in rows) or 1)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(visible=False, axis="x")
    for line, (text, shade) in enumerate(
        [(rows[0].larger, _LARGER_MODEL), ("the small model with as many FLOPs", _SMALL_MODEL)]
    ):
        y = _HEIGHT - _TOP - 2 - line * _LINE
        figure.text(10 / _WIDTH, y / _HEIGHT, "\u25a0", color=shade, fontsize=11, va="center")
        figure.text(24 / _WIDTH, y / _HEIGHT, text, fontsize=11, va="center")
    return figure


def _paper(title: str, right: float, top: float = _TOP, bottom: float = _BOTTOM) -> tuple[Figure, Axes]:
    """An empty chart with margins in points, and a title of two lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
    axes = figure.add_axes(
        (_LEFT / _WIDTH, bottom / _HEIGHT, 1 - (_LEFT + right) / _WIDTH, 1 - (top + bottom) / _HEIGHT)
    )
    above, title = title.rsplit("\n", 1)
    figure.text(10 / _WIDTH, 1 - 15 / _HEIGHT, above, fontsize=11, color=_SOFT_INK, va="center")
    figure.text(10 / _WIDTH, 1 - 31 / _HEIGHT, title, fontsize=12, fontweight="bold", va="center")
    return figure, axes


def _side_by_side(series: Sequence[Series]) -> list[Series]:
    """Lines over named ticks, moved so that their whiskers do not cover each other."""
    step = 0.6 / len(series)
    shifts = [step * (number - (len(series) - 1) / 2) for number in range(len(series))]
    return [replace(s, x=tuple(value + shift for value in s.x)) for s, shift in zip(series, shifts, strict=True)]


def _scale(axes: Axes, axis: Axis, series: Sequence[Series]) -> None:
    """Set the limits and ticks of both axes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

    values = [value for s in series for value in s.x]
    low, high = min(values), max(values)
    axes.set_xlabel(axis.label)
    if axis.ticks:
        axes.set_xlim(-0.5, len(axis.ticks) - 0.5)
        axes.set_xticks(range(len(axis.ticks)), axis.ticks)
        axes.grid(visible=False, axis="x")
    elif axis.scale != "linear":
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        axes.xaxis.set_major_locator(_log_locator(low, high) if axis.scale == "log" else LogLocator(base=4))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: (_short if axis.scale == "log" else _ratio)(value))
        )
    else:
        pad = 0.06 * (high - low) or 1.0
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=_ROUND))
    bottom, top = min(share.low for s in series for share in s.y), max(share.high for s in series for share in s.y)
    pad = 0.04 * (top - bottom) or 0.02
    axes.set_ylim(max(0.0, bottom - pad), min(1.0, top + pad))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _log_locator(low: float, high: float) -> Locator:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high < 5 * low:
        return MaxNLocator(4, steps=_ROUND)
    return LogLocator(subs=(1, 2, 5) if high < 60 * low else (1, 3) if high < 1000 * low else (1,))


def _label_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Write each label beside the end of its line, as near as the others leave room."""
    height = axes.get_window_extent().height
    bottom, top = axes.get_ylim()
    ends = sorted(((s.y[-1].value - bottom) / (top - bottom) * height, number) for number, s in enumerate(series))
    sizes = [_LINE * (1 + series[number].label.count("\n")) for _, number in ends]
    wide = axes.get_window_extent().width
    for centre, (_, number) in zip(_spread([end for end, _ in ends], sizes, height), ends, strict=True):
        s, y = series[number], centre / height
        axes.annotate(
            "",
            xy=(s.x[-1], s.y[-1].value),
            xytext=(1 + 6 / wide, y),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": s.look.colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0},
            annotation_clip=False,
        )
        axes.plot(
            [1 + 11 / wide],
            [y],
            s.look.marker,
            color=s.look.colour,
            markersize=s.look.size,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(1 + 18 / wide, y, s.label, transform=axes.transAxes, va="center", fontsize=11, linespacing=1.1)


def _spread(wanted: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """Centres for boxes of ``sizes``, in order, that touch nowhere and are as near to ``wanted`` as can be.

    With what lies below a box taken off, that is a regression on a rising line: neighbours out of order are pooled.
    """
    below = [sum(sizes[:number]) + sizes[number] / 2 for number in range(len(sizes))]
    pools: list[list[float]] = []
    for target, offset in zip(wanted, below, strict=True):
        pools.append([target - offset])
        while len(pools) > 1 and fmean(pools[-2]) >= fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    free = max(0.0, height + _LINE - sum(sizes))  # a label may stand half over an edge
    bases = [min(max(fmean(pool), -_LINE / 2), free - _LINE / 2) for pool in pools for _ in pool]
    return [base + offset for base, offset in zip(bases, below, strict=True)]


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _ratio(value: float) -> str:
    return f"{value:g}:1" if value >= 1 else f"1:{1 / value:g}"
