"""A report as one HTML page that loads nothing: no script, font or picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tts.bench.figures import Report, StudyInfo
from edge_tts.bench.plots import Panel, Plot, by
from edge_tts.bench.sections import sections
from edge_tts.bench.wording import count
from edge_tts.errors import InputError
from edge_tts.files.atomic import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "page.html.j2"


def write(report: Report, plots: Sequence[Plot], path: Path) -> None:
    """Write the page to ``path`` all or nothing. ``plots`` are those that ``plots.draw`` made of ``report``.

    Raises InputError where the file cannot be written, ResourceError where the disk is full.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the page, such as {path / 'report.html'}")
    write_text(path, render(report, plots))


def render(report: Report, plots: Sequence[Plot]) -> str:
    """The page as text, with the SVG files of ``plots`` in it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    template = environment.from_string(files("edge_tts.bench").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    answers = by(report.answers, lambda answer: answer.data)
    return template.render(
        report=report,
        policies=list(dict.fromkeys(study.policy for study in report.studies)),
        sets=[f"{data} ({_counted(own)})" for data, own in by(report.studies, lambda study: study.data).items()],
        answers=answers,
        overviews={plot.study: plot for plot in plots if plot.topic == "overview"},
        sections=sections(report, plots),
    )


def _counted(studies: Sequence[StudyInfo]) -> str:
    """How many problems ``studies`` of one data set have."""
    least, most = min(s.problems for s in studies), max(s.problems for s in studies)
    return count(most, "problem", "problems") if least == most else f"{least} to {most} problems"


def _inline(panel: Panel) -> Markup:
    """The panel's SVG as an element of a page.

    Its prologue and style are dropped, since the page has its own, and so are ids that nothing refers to, since an id
    may stand in a page only once.
    """
    from markupsafe import Markup, escape

    text = panel.svg.read_text(encoding="utf-8")
    opening = re.search(r"<svg[^>]*>", text)
    assert opening is not None
    (view,) = re.findall(r'viewBox="[^"]*"', opening.group())
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[opening.end() :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else "", body)
    return Markup(f'<svg {view} role="img" aria-label="{escape(panel.alt)}">{body}')
