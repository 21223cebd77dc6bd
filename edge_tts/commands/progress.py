"""The progress bar of long work, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.files.atomic import Progress


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """A callback ``(share done in [0, 1], what is being done)`` that draws a bar.

    The bar appears with the first call, and only on a terminal.
    """
    from rich.console import Console as NewConsole
    from rich.progress import Progress as Bar

    console = console or NewConsole(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=1.0, visible=False)
        yield lambda done, label: bar.update(task, completed=done, description=label, visible=True)
