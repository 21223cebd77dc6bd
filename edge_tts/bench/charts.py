"""How the plots of a report are drawn: lines with intervals, bars, and a fixed look for each strategy.

Charts are 360 points wide, so that a phone shows them at full size with labels of 10 pixels or more.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from edge_tts.bench.figures import Matched, Published, Saving, Share

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
"""Width of an average character and height of a line of text, in points."""

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
    """How a line differs from the others."""

    colour: str
    marker: str
    dash: Any = "-"
    width: float = 1.7
    size: float = 5.5
    """Of the marker."""


@dataclass(frozen=True)
class Series:
    """A line of a chart; its label may have several lines of text."""

    label: str
    look: Look
    x: tuple[float, ...]
    y: tuple[Share, ...]
    hollow: tuple[bool, ...] = ()
    """Which points get a hollow marker; empty: none."""

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


def looks_of_model(number: int) -> tuple[Look, Look, Look]:
    """Looks of one model's single answer, vote and adaptive vote: one colour for the model."""
    kind = ("majority", "best-of-n", "beam", "revise", "lookahead")[number % 5]
    colour = _LOOKS[kind][0]
    return Look(colour, "X", size=8), Look(colour, "o"), Look(colour, "s", (0, (4, 2)))


def rising_looks(count: int) -> list[Look]:
    """Looks for an ordered set of lines, from dark to light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    steps = [0.7 * number / max(1, count - 1) for number in range(count)]  # what lies above 0.7 is too pale
    return [Look(to_hex(colormaps["plasma"](x)), _MARKERS[i % len(_MARKERS)]) for i, x in enumerate(steps)]


def draw_lines(
    title: str, axis: Axis, series: Sequence[Series], whiskers: bool = False, levels: Sequence[Published] = ()
) -> tuple[Figure, Axes]:
    """A chart of shares with their intervals as bands or whiskers; the legend follows the order of their ends.

    ``levels`` are marked at the right edge; they have no cost.
    """
    named = [(level.accuracy, f"{level.model.removesuffix('-Instruct')}: {level.accuracy:.0%}") for level in levels]
    widest = max(
        len(line) for text in (*(s.label for s in series), *(name for _, name in named)) for line in text.split("\n")
    )
    figure, axes = _paper(title, right=min(30 + _CHARACTER * widest, 0.42 * _WIDTH))
    if axis.ticks and whiskers:
        series = _side_by_side(series)
    _scale_x(axes, axis, [x for s in series for x in s.x])
    shown = [share for s in series for share in s.y]
    edges = [*(share.low for share in shown), *(share.high for share in shown), *(level for level, _ in named)]
    _scale_y(axes, min(edges), max(edges))
    for level, name in sorted(named, reverse=True):
        edge: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
        axes.plot([1], [level], "<", color=_SOFT_INK, markersize=6, label=name, **edge)
    for s in sorted(series, key=lambda s: -s.y[-1].value):
        values, low, high = ([getattr(share, name) for share in s.y] for name in ("value", "low", "high"))
        colour = s.look.colour
        if whiskers or len(s.x) == 1:
            axes.vlines(s.x, low, high, color=colour, alpha=0.45, linewidth=1.2)
        else:
            axes.fill_between(s.x, low, high, color=colour, alpha=0.09, linewidth=0)
        marker: dict[str, Any] = {"marker": s.look.marker, "markersize": s.look.size, "clip_on": False}
        line: dict[str, Any] = {"linestyle": s.look.dash, "linewidth": s.look.width}
        axes.plot(s.x, values, color=colour, label=s.label, **line, **marker)
        beaten = [(x, y) for x, y, hollow in zip(s.x, values, s.hollow, strict=False) if hollow]
        for x, y in beaten:
            axes.plot(x, y, color=colour, markerfacecolor=figure.get_facecolor(), **marker)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handlelength=1, fontsize=11)
    return figure, axes


def draw_arrow(axes: Axes, saving: Saving, colour: str) -> None:
    """An arrow from the allocation's cost to the baseline's, at the accuracy that both reach; in GFLOP."""
    style = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate(
        "",
        xy=(saving.baseline_cost / 1e9, saving.accuracy),
        xytext=(saving.optimal_cost / 1e9, saving.accuracy),
        arrowprops={**style, "color": colour},
        annotation_clip=False,
    )


def draw_bars(title: str, rows: Sequence[Matched]) -> Figure:
    """Pairs of bars: the larger model, and the small one with as much compute."""
    labels = [f"R = {row.ratio:g}\n" + "\n".join(textwrap.wrap(row.strategy, 16)) for row in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = _paper(title, right=8, top=_TOP + 2.5 * _LINE, bottom=12 + lines * _LINE)
    places, small = range(len(rows)), [row.accuracy for row in rows]
    whiskers = [[y.value - y.low for y in small], [y.high - y.value for y in small]]
    pair: list[Any] = [
        axes.bar([x - 0.2 for x in places], [row.larger_accuracy for row in rows], 0.36, color=_LARGER_MODEL),
        axes.bar([x + 0.2 for x in places], [y.value for y in small], 0.36, color=_SMALL_MODEL, yerr=whiskers),
    ]
    for bars in pair:
        axes.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=11)
    _scale_y(axes, 0, 1.12 * max(max(row.larger_accuracy, row.accuracy.high) for row in rows) or 1)
    axes.set_xticks(places, labels, fontsize=11)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    figure.legend(
        pair,
        (rows[0].larger, "the small model with as many FLOPs"),
        loc="upper left",
        bbox_to_anchor=(0, 1 - (_TOP - 10) / _HEIGHT),
        frameon=False,
        handlelength=0.8,
        fontsize=11,
    )
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


def _scale_x(axes: Axes, axis: Axis, values: Sequence[float]) -> None:
    """Limits, ticks and label from left to right."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = min(values), max(values)
    axes.set_xlabel(axis.label)
    if axis.ticks:
        axes.set_xlim(-0.5, len(axis.ticks) - 0.5)
        axes.set_xticks(range(len(axis.ticks)), axis.ticks)
        axes.grid(visible=False, axis="x")
    elif axis.scale == "linear":
        pad = 0.06 * (high - low) or 1.0
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=_ROUND))
    else:
        plain = axis.scale == "log"
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        axes.xaxis.set_major_locator(_log_locator(low, high) if plain else LogLocator(base=4))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: (_short if plain else _ratio)(value)))


def _scale_y(axes: Axes, low: float, high: float) -> None:
    """Limits and ticks of shares."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    pad = 0.04 * (high - low) or 0.02
    axes.set_ylim(max(0.0, low - pad), min(1.0, high + pad))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _log_locator(low: float, high: float) -> Locator:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high < 5 * low:
        return MaxNLocator(4, steps=_ROUND)
    return LogLocator(subs=(1, 2, 5) if high < 60 * low else (1, 3) if high < 1000 * low else (1,))


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _ratio(value: float) -> str:
    return f"{value:g}:1" if value >= 1 else f"1:{1 / value:g}"
