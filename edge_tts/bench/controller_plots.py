"""Plots of what the controller's fit and escalation bring, from the records of their commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_tts.bench.charts import INK, SETTINGS, Axis, Look, Series, looks_of
from edge_tts.bench.figures import Share
from edge_tts.bench.plots import Chart, Panel, write_panel
from edge_tts.errors import InputError
from edge_tts.files.atomic import disk_errors

_OURS = Look("#631845", "p", width=2.2, size=8)
_IDEAL = Look("#9a9a96", "", (0, (4, 2)))


def draw(record: Mapping[str, Any], folder: Path) -> list[Panel]:
    """Draw ``record`` as SVG and PNG files in ``folder``.

    Raises InputError where it is none, or the folder cannot be written; ResourceError where the disk is full.
    """
    import matplotlib

    try:
        charts = list(_charts(record))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"this is no record of `bench controller` or `bench escalation` ({error!r})") from error
    if not charts:
        raise InputError("this record has nothing to draw; give what `bench controller` or `bench escalation` wrote")
    with matplotlib.rc_context(SETTINGS), disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [write_panel(folder, chart.name, *chart.draw()) for chart in charts]


def _charts(record: Mapping[str, Any]) -> Iterator[Chart]:
    if "curve" in record:
        yield from _escalation(record)
    elif "controller" in record:
        yield from _controller(str(record["pack"]), "", record)
    else:
        evidence = record.get("evidence", {})
        for format in record.get("fits", {}):
            yield from _controller(f"{evidence['pack']}, cross-validated", f"{format}-", evidence[format])


def _controller(title: str, stem: str, found: Mapping[str, Any]) -> Iterator[Chart]:
    controller = found["controller"]
    rows = [(100 * row["confidence"], _share(row)) for row in controller["reliability"]]
    ideal = [(100 * x, Share(x, x, x)) for x in (0.0, 1.0)]
    series = [Series.of("as sure\nas right", _IDEAL, ideal), Series.of("controller", _OURS, rows)]
    yield Chart(
        f"{stem}reliability", f"{title}\nRight by confidence", Axis("confidence, %", "linear"), series, whiskers=True
    )
    votes: dict[str, list[tuple[float, Share]]] = {}
    for name, row in found["against"].items():
        votes.setdefault(name.partition(":")[0], []).append((row["tokens"], Share(**row["interval"])))
    looks = looks_of(votes)
    own = [(controller["tokens"], Share(**controller["accuracy"]))]
    series = [Series.of(kind, looks[kind], points) for kind, points in votes.items()]
    series.append(Series.of("controller", _OURS, own))
    yield Chart(f"{stem}tokens", f"{title}\nAccuracy by tokens", Axis("tokens per problem"), series)


def _escalation(found: Mapping[str, Any]) -> Iterator[Chart]:
    title = f"{found['small']}, unsure questions to {found['large']}"
    points, alone = found["curve"], found["larger_alone"]
    level = Share(**alone["accuracy"])
    flat = Series.of("larger\nalone", _IDEAL, [(0.0, level), (100.0, level)])
    at_random = [(100 * p["share"], _exact(p["same_share_at_random"])) for p in points]
    handed = [(100 * p["share"], Share(**p["accuracy"])) for p in points]
    series = [flat, Series.of("at random", Look(INK, "", (0, (1.2, 1.6))), at_random)]
    series.append(Series.of("unsure\nfirst", _OURS, handed))
    yield Chart("escalation-share", f"{title}\nAccuracy by share", Axis("handed over, %", "linear"), series)
    costs: Sequence[tuple[float, Share]] = [(p["flops"] / 1e9, Share(**p["accuracy"])) for p in points]
    larger = Series.of("larger\nalone", looks_of(["majority"])["majority"], [(alone["flops"] / 1e9, level)])
    series = [larger, Series.of("unsure\nfirst", _OURS, costs)]
    yield Chart("escalation-compute", f"{title}\nAccuracy by compute", Axis("GFLOP per problem"), series)


def _share(row: Mapping[str, Any]) -> Share:
    return Share(row["right"], row["low"], row["high"])


def _exact(value: float) -> Share:
    return Share(value, value, value)
