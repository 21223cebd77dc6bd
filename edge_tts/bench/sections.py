"""What the page of a report says, as plain data: headlines, and sections of plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_tts.bench.figures import Report, Saving, Share
from edge_tts.bench.plots import Plot, at_common_budget, by, of_study, studies
from edge_tts.bench.wording import (
    Verdict,
    count,
    large,
    named_at,
    number,
    percent,
    percent_span,
    signed_points,
    span,
    times,
    verdict,
)

_UNITS = {"flops": "GFLOP", "policy_tokens": "policy tokens", "seconds": "seconds"}


@dataclass(frozen=True)
class Cell:
    """The text of a cell; ``small`` is a second, smaller line."""

    text: str
    small: str = ""
    verdict: Verdict = "undecided"


@dataclass(frozen=True)
class Column:
    """In a column of kind "link", addresses become links."""

    head: str
    kind: Literal["number", "text", "link"] = "number"


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading. A ``folded`` table is closed until the reader opens it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """Plots and tables of one section that belong together, usually to one study."""

    plots: tuple[Plot, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Section:
    """``id`` is the anchor of the page."""

    id: str
    title: str
    intro: str
    parts: tuple[Part, ...]


def sections(report: Report, plots: Sequence[Plot]) -> list[Section]:
    """All sections that have something to show."""

    def parts(topic: str, tables: Callable[[Report, str], Iterable[Table]]) -> tuple[Part, ...]:
        made = []
        for study in studies(report):
            shown = tuple(plot for plot in plots if plot.topic == topic and plot.study == study)
            made.append(Part(shown, tuple(table for table in tables(report, study) if table.rows)))
        return tuple(part for part in made if part.plots or part.tables)

    def alone(table: Table) -> tuple[Part, ...]:
        return (Part((), (table,)),) if table.rows else ()

    all_of_them = [
        Section("run", "What was run", "", alone(_study_table(report))),
        Section(
            "cost",
            "Accuracy and what it costs",
            "A budget is a number of generations. Tokens, FLOPs, seconds and joules are means per problem, verifier "
            "and difficulty estimation included; seconds are the machine's, shared by the problems of a batch.",
            parts("budgets", _point_tables),
        ),
        Section(
            "differences",
            "Wins and losses",
            "Accuracy minus that of the reference on the same problems at the same budget, in percentage points. "
            "\u25b2 is a win and \u25bc a loss: the whole 95% interval lies on that side of 0. Everything else is "
            "undecided. Where there is no true difference, about one comparison in 20 comes out as a win or a loss.",
            parts("differences", _difference_tables),
        ),
        Section(
            "difficulty",
            "Easy and hard problems",
            "Oracle difficulty is the share of samples that are right, which only a test can know; predicted "
            "difficulty is the verifier's mean score of a few samples.",
            parts("bins", _bin_tables),
        ),
        Section(
            "ratio",
            "Sequential or parallel",
            "The same number of generations, spent on a few long chains of revisions or on many short ones.",
            parts("ratios", _ratio_tables),
        ),
        Section(
            "optimal",
            "Compute-optimal allocation",
            "Each difficulty gets the strategy that did best on one half of the problems, and is scored on the other "
            "half. A factor says how many times as much the baseline needs for the same accuracy. \u25b2 marks a "
            "saving and \u25bc a loss: the whole 95% interval lies above 1, or below.",
            parts("optimal", _optimal_tables),
        ),
        Section(
            "matched",
            "A larger model at equal FLOPs",
            "What a larger model costs more in pretraining and in answering, the small one may spend on answering. "
            "R is the number of tokens answered for each token of pretraining (Snell et al. 2024, section 7); allowed "
            "and spent are in greedy answers of the small model. A mark takes the larger model's accuracy as exact.",
            parts("matched", _matched_tables),
        ),
        Section(
            "front",
            "What fits a device",
            "Latency and memory are those of lone questions in a process of their own, accuracy that of the study.",
            parts("front", _front_tables),
        ),
        Section(
            "published",
            "Published figures",
            "Measured by others with other prompts and harnesses: a scale, not a comparison.",
            alone(_published_table(report)),
        ),
    ]
    return [section for section in all_of_them if section.parts]


def _outcome(saving: Saving) -> str:
    return {"win": "saves", "loss": "costs more", "undecided": "undecided"}[verdict(saving, 1)]


def _study_table(report: Report) -> Table:
    return _table(
        "Studies",
        [
            *_texts("data", "policy"),
            *_numbers("parameters", "problems", "seeds"),
            *_texts("machine", "device", "joules from"),
        ],
        [
            (s.name, s.policy, large(s.parameters), f"{s.problems:,}", str(s.seeds), s.machine, s.device, s.energy)
            for s in report.studies
        ],
    )


def _point_tables(report: Report, study: str) -> Iterator[Table]:
    points = of_study(report.points, study)
    accuracy = [(p.strategy, p.budget, _two_lines(p.accuracy)) for p in points]
    yield _matrix(f"{study}: right answers by budget", "strategy", accuracy)
    yield _table(
        f"{study}: every point with its cost",
        [
            *_texts("strategy"),
            *_numbers("budget", "right", "policy tokens", "verifier tokens", "GFLOP", "s", "J"),
        ],
        [
            (
                p.strategy,
                str(p.budget),
                _two_lines(p.accuracy),
                number(p.cost.policy_tokens),
                number(p.cost.verifier_tokens),
                number(p.cost.flops / 1e9),
                number(p.cost.seconds),
                number(p.cost.joules),
            )
            for p in points
        ],
        folded=True,
    )


def _difference_tables(report: Report, study: str) -> Iterator[Table]:
    for reference, rows in by(of_study(report.differences, study), lambda d: d.reference).items():
        cells, verdicts = [], []
        for d in rows:
            verdicts.append(verdict(d, 0))
            interval = f"{signed_points(d.low)} to {signed_points(d.high)}"
            cells.append((d.strategy, d.budget, Cell(signed_points(d.value), interval, verdicts[-1])))
        wins, losses, undecided = (verdicts.count(v) for v in ("win", "loss", "undecided"))
        score = f"{count(wins, 'win', 'wins')}, {count(losses, 'loss', 'losses')}, {undecided} undecided"
        yield _matrix(f"{study}, against {reference}: {score}", "strategy", cells)


def _bin_tables(report: Report, study: str) -> Iterator[Table]:
    for difficulty, points in by(of_study(report.bins, study), lambda p: p.difficulty).items():
        common = at_common_budget(points)
        cells = [(named_at(p.strategy, p.budget), p.bin, _two_lines(p.accuracy)) for p in common]
        sizes = {p.bin: f"bin {p.bin + 1} ({p.problems})" for p in common}
        title = f"{study}: right answers by bin of {difficulty} difficulty (and its problems)"
        yield _matrix(title, "strategy", cells, sizes.__getitem__, folded=True)


def _ratio_tables(report: Report, study: str) -> Iterator[Table]:
    rows = sorted(of_study(report.ratios, study), key=lambda r: (r.budget, r.sequential))
    cells = []
    for r in rows:
        chains = f"{r.budget}: {r.budget // r.sequential} \u00d7 {r.sequential}"
        cells.append((chains, -1 if r.bin is None else r.bin, _two_lines(r.accuracy)))
    title = f"{study}: right answers by chains and attempts in each"
    yield _matrix(title, "budget: chains \u00d7 attempts", cells, lambda b: f"bin {b + 1}" if b >= 0 else "all", True)


def _optimal_tables(report: Report, study: str) -> Iterator[Table]:
    savings = of_study(report.savings, study)
    units = list(_UNITS)
    yield _matrix(
        f"{study}: how many times as much a baseline needs",
        "baseline, difficulty",
        [
            (f"{s.baseline}, {s.difficulty}", units.index(s.unit), Cell(times(s.factor), span(s), verdict(s, 1)))
            for s in savings
        ],
        lambda unit: f"in {_UNITS[units[unit]]}",
    )
    yield _table(
        f"{study}: where each factor is read off",
        [*_texts("baseline", "difficulty", "in"), *_numbers("at accuracy", "allocation", "baseline", "factor")],
        [
            (
                s.baseline,
                s.difficulty,
                _UNITS[s.unit],
                percent(s.accuracy),
                *(number(cost / (1e9 if s.unit == "flops" else 1)) for cost in (s.optimal_cost, s.baseline_cost)),
                f"{times(s.factor)} ({span(s)}, {_outcome(s)})",
            )
            for s in savings
        ],
        folded=True,
    )
    points = of_study(report.optimal, study)
    bins = max((len(p.cells) for p in points), default=0)
    yield _table(
        f"{study}: what each bin of difficulty gets, easiest first",
        [*_texts("difficulty"), *_numbers("GFLOP", "s", "right"), *_texts(*(f"bin {i + 1}" for i in range(bins)))],
        [
            (p.difficulty, number(p.cost.flops / 1e9), number(p.cost.seconds), _two_lines(p.accuracy), *p.cells)
            for p in points
        ],
        folded=True,
    )


def _matched_tables(report: Report, study: str) -> Iterator[Table]:
    yield _table(
        f"{study}: the small model with the FLOPs of a larger one",
        [
            *_texts("larger model"),
            *_numbers("R", "its accuracy", "small model's"),
            *_texts("with"),
            *_numbers("allowed", "spent"),
            Column("source", "link"),
        ],
        [
            (
                f"{m.larger}, {times(m.times)} larger",
                f"{m.ratio:g}",
                percent(m.larger_accuracy),
                Cell(percent(m.accuracy.value), percent_span(m.accuracy), verdict(m.accuracy, m.larger_accuracy)),
                m.strategy,
                times(m.allowed),
                times(m.spent),
                m.larger_source,
            )
            for m in of_study(report.matched, study)
        ],
    )


def _front_tables(report: Report, study: str) -> Iterator[Table]:
    yield _table(
        f"{study}: latency and memory alone on the device",
        [*_texts("strategy"), *_numbers("budget", "right", "median s", "peak MB"), *_texts("on the front")],
        [
            (
                p.strategy,
                str(p.budget),
                _two_lines(p.accuracy),
                number(p.latency_s),
                number(p.memory_mb),
                "yes" if p.on_front else "no",
            )
            for p in of_study(report.front, study)
        ],
        folded=True,
    )


def _published_table(report: Report) -> Table:
    return _table(
        "Published figures",
        [
            *_texts("model"),
            *_numbers("parameters"),
            *_texts("data"),
            *_numbers("accuracy"),
            *_texts("how"),
            Column("source", "link"),
        ],
        [(p.model, large(p.parameters), p.data, percent(p.accuracy), p.how, p.source) for p in report.published],
    )


def _table(title: str, columns: Iterable[Column], rows: Iterable[Sequence[Cell | str]], folded: bool = False) -> Table:
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(title, tuple(columns), cells, folded)


def _matrix(
    title: str,
    corner: str,
    cells: Sequence[tuple[str, int, Cell]],
    head: Callable[[int], str] = str,
    folded: bool = False,
) -> Table:
    """A table from (row, column, cell)."""
    columns = sorted({column for _, column, _ in cells})
    rows: list[list[Cell | str]] = []
    for row, own in by(cells, lambda cell: cell[0]).items():
        filled = {column: cell for _, column, cell in own}
        rows.append([row, *(filled.get(column, Cell("")) for column in columns)])
    return _table(title, [*_texts(corner), *_numbers(*map(head, columns))], rows, folded)


def _texts(*heads: str) -> list[Column]:
    return [Column(head, "text") for head in heads]


def _numbers(*heads: str) -> list[Column]:
    return [Column(head) for head in heads]


def _two_lines(share: Share) -> Cell:
    return Cell(percent(share.value), percent_span(share))
