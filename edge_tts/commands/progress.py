"""The bar that long work shows on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.files.atomic import Progress


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """A callback that shows what is being done and how far it is; nothing is shown before its first call, nor
    where there is no terminal."""
    from rich.console import Console as NewConsole
    from rich.progress import Progress as Bar

    console = console or NewConsole(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("preparing", total=1.0, visible=False)
        yield lambda done, label: bar.update(task, completed=done, description=label, visible=True)
