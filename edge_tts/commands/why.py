"""``edge-reason why``: show how an answer was found, from a file that ``solve --save`` wrote."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--html", type=_FILE, help="Write a web page to this file instead.")
def command(file: Path, html: Path | None) -> None:
    """Show how the answer saved in FILE was found: the candidates by answer, their votes, and what it took."""
    from edge_tts.commands.console import consoles
    from edge_tts.commands.search_tree import print_search
    from edge_tts.files.atomic import write_text
    from edge_tts.questions.saved_search import read
    from edge_tts.search.saved_page import page

    search = read(file)
    output, errors = consoles()
    if html is None:
        print_search(output, search)
        return
    write_text(html, page(search))
    errors.print(f"{html} shows the search", soft_wrap=True)
