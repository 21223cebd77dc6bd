"""The live view of ``solve -v``: each candidate's steps and score, and the time spent."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_tts.core import BestSoFar, CandidateScored, DifficultyEstimated, Event, StepTaken, StrategyChosen

SHOWN = 16
"""Most candidates shown at once; the newest ones win."""


class LiveView:
    """On a terminal a table that refreshes, elsewhere one line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: dict[int, tuple[str, ...]] = {}
        self._scores: dict[int, float] = {}
        self._finished: set[int] = set()
        self._facts: dict[str, str] = {}
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        line = self._take(event)
        if self._live:
            self._live.update(self._view())
        else:
            self._console.print(f"{time.monotonic() - self._began:7.2f} s  {line}", markup=False, highlight=False)

    def _take(self, event: Event) -> str:
        match event:
            case StepTaken(candidate, text, finished, steps):
                self._steps[candidate] = steps
                (self._finished.add if finished else self._finished.discard)(candidate)
                return f"[{candidate}] {text}"
            case CandidateScored(candidate, score):
                self._scores[candidate] = score
                return f"[{candidate}] scored {score:.3f}"
            case BestSoFar(answer, score):
                self._facts["best so far"] = f"{answer} ({score:.3f})"
                return f"best so far: {answer} ({score:.3f})"
            case DifficultyEstimated(bin_, score):
                self._facts["difficulty"] = f"{bin_ + 1} of 5 (probe score {score:.3f})"
                return f"difficulty {bin_ + 1} of 5 (probe score {score:.3f})"
            case StrategyChosen(strategy, reason):
                self._facts["strategy"] = f"{strategy} ({reason})"
                self._steps.clear()
                self._scores.clear()
                self._finished.clear()
                return f"strategy {strategy}: {reason}"

    def _view(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=False)
        for name, justify in (("#", "right"), ("score", "right"), ("steps", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for candidate in list(self._steps)[-SHOWN:]:
            score = f"{self._scores[candidate]:.3f}" if candidate in self._scores else ""
            style = "green" if candidate in self._finished else ""
            table.add_row(str(candidate), score, Text(" | ".join(self._steps[candidate]), style, overflow="ellipsis"))
        facts = [Text(f"{name}: {value}") for name, value in self._facts.items()]
        spent = Text(f"{time.monotonic() - self._began:.1f} s, {len(self._finished)} finished", "dim")
        return Group(*facts, table, spent)
