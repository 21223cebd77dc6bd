"""What is shown of a search while it runs: the live view with ``-v``, else one line on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_tts.commands.asking import Asking
from edge_tts.commands.console import one_line
from edge_tts.events import Event
from edge_tts.questions.recording import Recording
from edge_tts.search.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.solver import Solver


@contextmanager
def watching(
    solver: Solver, asking: Asking, recording: Recording, errors: Console, verbose: bool
) -> Iterator[Callable[[Event], object]]:
    """A function that takes the events of a search: into ``recording``, and onto ``errors``."""
    if verbose:
        from edge_tts.commands.live import LiveView

        seconds = asking.limits.seconds or solver.deadline_s
        with LiveView(errors, recording, seconds, asking.most_samples(solver)) as view:
            yield view.show
    elif not errors.is_terminal:
        yield recording.take
    else:
        from rich.text import Text

        with errors.status("thinking", spinner_style="dim") as status:

            def show(event: Event) -> None:
                recording.take(event)
                ended = sum(attempt.finished for attempt in recording.attempts)
                if best := recording.best:
                    line = f"{counted(ended)} ended, best so far: {one_line(best.answer)}; Ctrl-C ends it"
                    status.update(Text(line, no_wrap=True, overflow="ellipsis"))

            yield show
