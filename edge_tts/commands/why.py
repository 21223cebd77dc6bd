"""``edge-reason why``: show how an answer was found, from a file that ``solve --save`` wrote."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_tts.questions.saved_search import SavedSearch

TEMPLATE = "why.html.j2"
_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--html", type=_FILE, help="Write a web page to this file instead.")
def command(file: Path, html: Path | None) -> None:
    """Show how the answer saved in FILE was found: the candidates by answer, their votes, and what it took."""
    from edge_tts.commands.console import consoles
    from edge_tts.commands.search_tree import print_search
    from edge_tts.files.atomic import building, disk_errors, publish
    from edge_tts.questions.saved_search import read

    search = read(file)
    output, errors = consoles()
    if html is None:
        print_search(output, search)
        return
    text = page(search)
    with disk_errors(html.parent), building(html.parent) as temporary:
        (temporary / html.name).write_text(text, encoding="utf-8", errors="replace")
        publish(temporary / html.name, html)
    errors.print(f"{html} shows the search", soft_wrap=True)


def page(search: SavedSearch) -> str:
    """``search`` as one HTML page that loads nothing and runs no script."""
    import jinja2

    from edge_tts.commands.search_tree import alike, facts
    from edge_tts.search.wording import counted, level, percent, sureness

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("edge_tts.commands").joinpath(TEMPLATE).read_text(encoding="utf-8"))
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
