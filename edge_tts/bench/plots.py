"""The plots of a report: one small panel a file, each legible at the width of a phone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from edge_tts.bench.charts import (
    INK,
    SETTINGS,
    Axis,
    Look,
    Series,
    draw_arrow,
    draw_bars,
    draw_lines,
    looks_of,
    looks_of_model,
    rising_looks,
)
from edge_tts.bench.figures import BinPoint, Cost, FrontPoint, Point, Published, Report, Saving, StudyInfo
from edge_tts.bench.published import for_data
from edge_tts.bench.wording import percent, span, times
from edge_tts.files.atomic import building, disk_errors, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "plots"

Topic = Literal["overview", "budgets", "bins", "ratios", "optimal", "matched", "front"]
"""The part of a page that a plot belongs to; the study of an "overview" is a data set."""

_BASELINES = ("best-of-n", "weighted", "majority", "adaptive")

_COSTS: tuple[tuple[str, str, Callable[[Cost], float | None]], ...] = (
    ("tokens", "policy + verifier tokens", lambda cost: cost.policy_tokens + cost.verifier_tokens),
    ("compute", "GFLOP", lambda cost: cost.flops / 1e9),
    ("time", "seconds", lambda cost: cost.seconds),
    ("energy", "joules", lambda cost: cost.joules),
)


LARGER = 1.5
"""Times the parameters of the largest model in a report, from which a published model is shown as a larger one."""

_KINDS = (("greedy",), ("weighted", "majority"), ("auto", "adaptive"))
"""Lines of an overview: of each group the first that was run."""

_OVERVIEW_COSTS: tuple[tuple[str, str, Callable[[Point | FrontPoint], float | None]], ...] = (
    ("compute", "GFLOP a question", lambda row: row.cost.flops / 1e9 if isinstance(row, Point) else None),
    # Seconds of a study are those of a machine that also did other work; those of lone questions can be compared.
    ("time", "seconds of a lone question", lambda row: row.latency_s if isinstance(row, FrontPoint) else None),
    ("memory", "peak memory, MB", lambda row: row.memory_mb if isinstance(row, FrontPoint) else None),
)


_TEXTS: dict[Topic, tuple[str, str]] = {
    "overview": (
        "accuracy against cost",
        "A cross is one greedy answer, a line is a vote of more and more samples, a dashed line stops early; bands are "
        "95% intervals, arrowheads at the right edge published figures of larger models at a cost not stated.",
    ),
    "budgets": (
        "accuracy against what it costs",
        "Each marker is a budget, from few generations to many; higher and further left is better, and the bands "
        "are 95% intervals.",
    ),
    "bins": (
        "accuracy by difficulty",
        "Problems are in five bins from easiest to hardest; the highest line in a bin is the strategy to choose "
        "there, and whiskers are 95% intervals.",
    ),
    "ratios": (
        "sequential or parallel",
        "At the left all attempts are independent and at the right each revises the one before, at the same number "
        "of generations; bands are 95% intervals.",
    ),
    "optimal": (
        "an allocation by difficulty against one strategy for all",
        "Each arrow goes from the compute that the allocation needs to what the baseline needs for the same "
        "accuracy; the number is their ratio with its 95% interval, and above 1 is a saving.",
    ),
    "matched": (
        "against a larger model at equal FLOPs",
        "Where the blue bar is higher, compute spent while answering beats the same compute spent on a larger "
        "model; the line on it is its 95% interval.",
    ),
    "front": (
        "accuracy, latency and memory",
        "Filled markers are on the front: no other point is at least as good in accuracy, latency and memory at "
        "once; whiskers are 95% intervals.",
    ),
}
"""Of each topic, the title and one sentence on how to read the plot."""


@dataclass(frozen=True)
class Panel:
    """One picture in two formats, with what it says in words."""

    name: str
    """Of the quantity from left to right, where a page lets its reader choose among panels."""
    alt: str
    svg: Path
    png: Path


@dataclass(frozen=True)
class Plot:
    """Panels that are read together."""

    topic: Topic
    study: str
    name: str
    title: str
    caption: str
    """One sentence on how to read it."""
    panels: tuple[Panel, ...]


class _OfStudy(Protocol):
    @property
    def study(self) -> str: ...


T = TypeVar("T")
K = TypeVar("K")
S = TypeVar("S", bound=_OfStudy)


def draw(report: Report, folder: Path) -> list[Plot]:
    """Draw ``report`` as SVG and PNG files in ``folder/plots``; what has no data is left out.

    Raises InputError where the folder cannot be written, ResourceError where the disk is full.
    """
    import matplotlib

    with matplotlib.rc_context(SETTINGS), disk_errors(folder):
        target = folder / FOLDER
        target.mkdir(parents=True, exist_ok=True)
        drawing = _Drawing(report, target)
        overviews = [drawing.overview(data, own) for data, own in by(report.studies, lambda s: s.data).items()]
        own_plots = [plot for place, study in enumerate(studies(report), 1) for plot in drawing.study(study, place)]
        return [*(plot for plot in overviews if plot.panels), *own_plots]


def studies(report: Report) -> list[str]:
    """The names of all studies that ``report`` has figures of."""
    parts: list[Iterable[_OfStudy]] = [report.points, report.bins, report.ratios, report.optimal, report.savings]
    parts += [report.differences, report.matched, report.front]
    return list(
        dict.fromkeys([*(study.name for study in report.studies), *(row.study for part in parts for row in part)])
    )


def at_common_budget(points: Iterable[BinPoint]) -> list[BinPoint]:
    """What each strategy has at the largest budget that all share, or at its own largest where it has not that one.

    Greedy, which has one budget, does not count.
    """
    points = list(points)
    budgets = {strategy: {point.budget for point in own} for strategy, own in by(points, lambda p: p.strategy).items()}
    several = [own for own in budgets.values() if max(own) > 1]
    shared = set.intersection(*several) if several else set()
    chosen = {strategy: max(own & shared or own) for strategy, own in budgets.items()}
    return [point for point in points if point.budget == chosen[point.strategy]]


@dataclass(frozen=True)
class Chart:
    """Lines to be drawn as one panel."""

    name: str
    title: str
    axis: Axis
    series: Sequence[Series]
    whiskers: bool = False
    arrows: Sequence[tuple[Saving, str]] = ()
    """Savings with their colours."""
    levels: Sequence[Published] = ()
    """Marked at the right edge, since their cost is not known."""

    def draw(self) -> tuple[Figure, str]:
        """The figure and what it says in words."""
        figure, axes = draw_lines(self.title, self.axis, self.series, self.whiskers, self.levels)
        for saving, colour in self.arrows:
            draw_arrow(axes, saving, colour)
        ends = ", ".join(f"{' '.join(s.label.split())} {percent(s.y[-1].value)}" for s in self.series)
        said = f"{': '.join(self.title.splitlines())}. At the right end of each line: {ends}."
        published = ", ".join(f"{level.model} {percent(level.accuracy)}" for level in self.levels)
        return figure, f"{said} Published: {published}." if published else said


class _Drawing:
    """Draws the plots of one report into ``target``, with one look for a strategy throughout."""

    def __init__(self, report: Report, target: Path) -> None:
        self._report = report
        self._target = target
        names = [row.strategy for part in (report.points, report.bins, report.front) for row in part]
        self._looks = looks_of(dict.fromkeys(names))

    def overview(self, data: str, models: Sequence[StudyInfo]) -> Plot:
        """All models on one data set, by what their answers cost."""
        largest = max((model.parameters or 0 for model in models), default=0)
        levels = [p for p in for_data(data) if p.parameters > LARGER * largest]
        panels = []
        for name, label, cost in _OVERVIEW_COSTS:
            series = [line for number, model in enumerate(models) for line in self._lines(number, model, cost)]
            if series:
                chart = Chart(name, f"{data}\nAccuracy by {name}", Axis(label), series, levels=levels)
                panels.append(write_panel(self._target, f"{_stem(data)}-overview-{name}", *chart.draw()))
        title, caption = _TEXTS["overview"]
        return Plot("overview", data, f"{_stem(data)}-overview", f"{data}: {title}", caption, tuple(panels))

    def _lines(self, number: int, model: StudyInfo, cost: Callable[[Point | FrontPoint], float | None]) -> list[Series]:
        rows: list[Point | FrontPoint] = [
            *of_study(self._report.points, model.name),
            *of_study(self._report.front, model.name),
        ]
        found = []
        for look, kinds in zip(looks_of_model(number), _KINDS, strict=True):
            for kind in kinds:
                own = sorted((r for r in rows if r.strategy == kind), key=lambda r: r.budget)
                # One sample is no vote.
                line = [(x, r.accuracy) for r in own if (x := cost(r)) and (kind == "greedy" or r.budget > 1)]
                if line:
                    label = "\n".join(textwrap.wrap(f"{model.policy} {kind}", 15))
                    found.append(Series.of(label, look, line))
                    break
        return found

    def study(self, study: str, place: int) -> list[Plot]:
        """The plots of one study that have data."""
        stem = f"{place}-{_stem(study)}"
        charts: dict[Topic, Iterable[Chart]] = {
            "budgets": self._budgets(study),
            "bins": self._bins(study),
            "ratios": self._ratios(study),
            "optimal": self._optimal(study),
            "matched": (),
            "front": self._front(study),
        }
        plots = []
        for topic, some in charts.items():
            drawn = [chart for chart in some if chart.series]
            panels = [write_panel(self._target, f"{stem}-{chart.name}", *chart.draw()) for chart in drawn]
            if topic == "matched":
                panels = self._matched(study, stem)
            if panels:
                title, caption = _TEXTS[topic]
                plots.append(Plot(topic, study, f"{stem}-{topic}", f"{study}: {title}", caption, tuple(panels)))
        return plots

    def _budgets(self, study: str) -> Iterator[Chart]:
        points = by(of_study(self._report.points, study), lambda p: p.strategy)
        for name, label, cost in _COSTS:
            series = []
            for strategy, own in points.items():
                own.sort(key=lambda p: p.budget)
                known = [(x, p.accuracy) for p in own if (x := cost(p.cost))]
                if known:
                    series.append(Series.of(strategy, self._looks[strategy], known))
            yield Chart(name, f"{study}\nAccuracy by {name}", Axis(f"{label} per problem"), series)

    def _bins(self, study: str) -> Iterator[Chart]:
        ticks = ("1\neasiest", "2", "3", "4", "5\nhardest")
        for difficulty, points in by(of_study(self._report.bins, study), lambda p: p.difficulty).items():
            common = at_common_budget(points)
            budget = max(point.budget for point in common)
            series = []
            for strategy, own in by(common, lambda p: p.strategy).items():
                own.sort(key=lambda p: p.bin)
                label = strategy if own[0].budget in (1, budget) else f"{strategy}\nat {own[0].budget}"
                series.append(Series.of(label, self._looks[strategy], [(p.bin, p.accuracy) for p in own]))
            title = f"{study}\n{difficulty.capitalize()} difficulty, budget {budget}"
            yield Chart(f"bins-{difficulty}", title, Axis("", ticks=ticks), series, whiskers=True)

    def _ratios(self, study: str) -> Iterator[Chart]:
        axis = Axis("sequential : parallel", "ratio")
        for overall, some in by(of_study(self._report.ratios, study), lambda p: p.bin is None).items():
            budgets = by(some, lambda p: p.budget)
            if overall:
                lines = {f"budget {budget}": budgets[budget] for budget in sorted(budgets)}
                title = f"{study}\nSequential to parallel"
            else:
                bins = by(budgets[max(budgets)], lambda p: p.bin or 0)
                lines = {f"bin {bin + 1}": bins[bin] for bin in sorted(bins)}
                title = f"{study}\nBy difficulty, budget {max(budgets)}"
            series = []
            for look, (label, own) in zip(rising_looks(len(lines)), lines.items(), strict=True):
                own.sort(key=lambda p: p.sequential)
                series.append(Series.of(label, look, [(p.sequential**2 / p.budget, p.accuracy) for p in own]))
            yield Chart(f"ratios-{'all' if overall else 'bins'}", title, axis, series)

    def _optimal(self, study: str) -> Iterator[Chart]:
        best = Look(INK, "*", width=2.4, size=9)
        for difficulty, points in by(of_study(self._report.optimal, study), lambda p: p.difficulty).items():
            own_savings = (s for s in of_study(self._report.savings, study) if s.difficulty == difficulty)
            savings = {s.baseline: s for s in own_savings if s.unit == "flops"}
            points.sort(key=lambda p: p.cost.flops)
            series = [Series.of("compute-\noptimal", best, [(p.cost.flops / 1e9, p.accuracy) for p in points])]
            for strategy, own in by(of_study(self._report.points, study), lambda p: p.strategy).items():
                if strategy in savings or strategy in _BASELINES:
                    saved = savings.get(strategy)
                    label = f"{strategy}\n{times(saved.factor)} ({span(saved)})" if saved else strategy
                    own.sort(key=lambda p: p.budget)
                    line = [(p.cost.flops / 1e9, p.accuracy) for p in own]
                    series.append(Series.of(label, self._looks[strategy], line))
            longest_first = sorted(savings.values(), key=lambda s: -max(s.factor, 1 / s.factor))  # none hides another
            looks = ((saving, self._looks.get(saving.baseline)) for saving in longest_first)
            arrows = [(saving, look.colour if look else INK) for saving, look in looks]
            title = f"{study}\nCompute-optimal, {difficulty} difficulty"
            yield Chart(f"optimal-{difficulty}", title, Axis("GFLOP per problem"), series, arrows=arrows)

    def _front(self, study: str) -> Iterator[Chart]:
        points = by(of_study(self._report.front, study), lambda p: p.strategy)
        for name, axis in (
            ("latency", Axis("median seconds of a lone question")),
            ("memory", Axis("peak memory, MB", "linear")),
        ):
            series = []
            for strategy, own in points.items():
                own.sort(key=lambda p: p.budget)
                cost = {p: p.latency_s if name == "latency" else p.memory_mb for p in own}
                known = [(p, x) for p, x in cost.items() if x is not None]
                if known:
                    y, hollow = tuple(p.accuracy for p, _ in known), tuple(not p.on_front for p, _ in known)
                    series.append(Series(strategy, self._looks[strategy], tuple(x for _, x in known), y, hollow))
            yield Chart(f"front-{name}", f"{study}\nAccuracy by {name}", axis, series, whiskers=True)

    def _matched(self, study: str, stem: str) -> list[Panel]:
        panels = []
        rows = by(of_study(self._report.matched, study), lambda m: m.larger)
        for place, (larger, own) in enumerate(rows.items(), 1):
            own.sort(key=lambda m: m.ratio)
            said = "; ".join(
                f"at R = {m.ratio:g} {m.strategy} {percent(m.accuracy.value)} against {percent(m.larger_accuracy)}"
                for m in own
            )
            alt = f"{study} against {larger}, {own[0].times:.3g} times larger, at equal FLOPs: {said}"
            figure = draw_bars(f"{study}\nAt equal FLOPs", own)
            panels.append(write_panel(self._target, f"{stem}-matched-{place}", figure, alt))
        return panels


def _stem(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_panel(folder: Path, name: str, figure: Figure, alt: str) -> Panel:
    """Write ``figure`` as ``folder/name`` in both formats; ``alt`` says in words what it shows."""
    import matplotlib

    panel = Panel(name.rsplit("-", 1)[-1], alt, folder / f"{name}.svg", folder / f"{name}.png")
    with building(folder) as temporary:
        with matplotlib.rc_context({"svg.hashsalt": name}):  # ids that differ between panels, and not between runs
            figure.savefig(temporary / panel.svg.name, metadata={"Date": None})
        figure.savefig(temporary / panel.png.name)
        for path in (panel.svg, panel.png):
            publish(temporary / path.name, path)
    return panel


def of_study(rows: Iterable[S], study: str) -> list[S]:
    """Those of ``rows`` that belong to ``study``."""
    return [row for row in rows if row.study == study]


def by(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """``rows`` in groups, in the order in which the groups appear."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
