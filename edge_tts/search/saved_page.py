"""A saved search for people: one HTML page, and the lines that the page and the terminal have in common."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from edge_tts.questions.recording import Attempt
from edge_tts.questions.saved_search import SavedSearch
from edge_tts.search.wording import cost, counted, escalated, in_format, level, percent, sureness, why_stopped

NAMED = 3
"""Most candidates with the same steps whose numbers are shown."""
_TEMPLATE = "saved_page.html.j2"


def page(search: SavedSearch) -> str:
    """``search`` as one HTML page that loads nothing and runs no script."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    result, shares = search.result, dict(search.result.votes)
    groups = [
        {
            "answer": group.answer,
            "chosen": group.answer == result.answer,
            "share": shares.get(group.answer, 0.0),
            "count": counted(len(group.attempts), result.strategy),
            "attempts": alike(group.attempts),
        }
        for group in search.groups()
    ]
    rest = [("failed", search.failed), ("unfinished", search.unfinished)]
    return template.render(
        search=search,
        result=result,
        level=level(result.confidence),
        sureness=sureness(result.confidence),
        groups=groups,
        rest=[(name, counted(len(attempts), result.strategy), alike(attempts)) for name, attempts in rest if attempts],
        facts=facts(search),
        percent=percent,
    )


def facts(search: SavedSearch) -> list[str]:
    """Why it stopped, what it took, and what was asked, as lines."""
    result, settings = search.result, search.settings
    hard = f", difficulty {result.difficulty.bin + 1} of 5" if result.difficulty else ""
    asked = [escalated(result.escalation)] if result.escalation else []
    return [
        *asked,
        f"stopped because {why_stopped(result.stop_reason)}",
        cost(result.usage, len(search.candidates), result.strategy),
        ", ".join(filter(None, (settings.pack, in_format(result.format)))),
        f"{result.strategy} ({result.reason}){hard}, seed {result.seed}",
    ]


def alike(attempts: Sequence[Attempt]) -> list[tuple[str, Attempt]]:
    """Candidates with the same steps as one, behind a label: "#1, #4", or "#1, #4, #5 and 3 more like it"."""
    members: dict[tuple[tuple[str, ...], str], list[Attempt]] = {}
    for attempt in attempts:
        members.setdefault((attempt.steps, attempt.error), []).append(attempt)
    return [(_numbers(same), same[0]) for same in members.values()]


def _numbers(attempts: Sequence[Attempt]) -> str:
    named = ", ".join(f"#{attempt.number}" for attempt in attempts[:NAMED])
    return named if len(attempts) <= NAMED else f"{named} and {len(attempts) - NAMED} more like it"
