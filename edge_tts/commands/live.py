"""The live view of ``solve -v``: votes, confidence, what each candidate writes, and what is spent."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_tts.commands.console import STYLES, one_line
from edge_tts.events import Event, Explained
from edge_tts.questions.recording import AnswerGroup, Attempt, Recording
from edge_tts.search.wording import duration, level, percent, sureness

BAR = 20
"""Characters of a vote of 100%."""
AROUND = 4
"""Lines that are not votes or candidates: the search, the best answer, what is spent, and one that stays free."""
LATEST = 6
"""Confidences in the tally: what a line of 80 characters holds, since the last one must not be cut."""
LONGEST_ANSWER = 24
"""Characters shown of an answer beside its votes."""


class LiveView:
    """On a terminal a picture that refreshes and leaves a tally of three lines, elsewhere one line for each event."""

    def __init__(
        self, console: Console, recording: Recording, deadline_s: float | None = None, samples: int | None = None
    ) -> None:
        """``deadline_s`` and ``samples`` are what may be spent; None where that is not bounded."""
        self._console, self._recording = console, recording
        self._deadline_s, self._samples = deadline_s, samples
        self._groups: list[AnswerGroup] = []
        self._live = (
            Live(console=console, get_renderable=self.picture, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            for line in self.tally():
                self._console.print(Text(line, "dim"), no_wrap=True, overflow="ellipsis")

    def show(self, event: Event) -> None:
        """Record and show one event."""
        moment = self._recording.take(event)
        if self._live is None and isinstance(event, Explained):
            return  # word by word; all of it is part of the result
        if self._live is None:
            line = Text(f"{moment.seconds:7.2f} s  {one_line(moment.line)}")
            self._console.print(line, soft_wrap=True)
        elif getattr(event, "answer", None) is not None:
            self._groups = self._recording.groups()

    # --- what is drawn ---------------------------------------------------------------------------

    def picture(self) -> RenderableType:
        """All of it, in no more lines than the terminal has."""
        width, height = self._console.size
        room = max(1, height - AROUND)
        groups = self._groups[: max(1, room // 3)]
        rows = self._rows(room - len(groups))
        lines = [
            Text(self._search(), "dim"),
            *self._votes(groups),
            self._best(),
            *(self._candidate(attempt, width) for attempt in rows),
            Text(self._spent(), "dim"),
        ]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        grid = Table.grid()
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for line in lines[: height - 1]:
            grid.add_row(line)
        return Group(grid)

    def tally(self) -> list[str]:
        """Three lines that say how the search went."""
        votes = [f"{len(g.attempts)} for {one_line(g.answer)[:LONGEST_ANSWER]}" for g in self._groups]
        attempts = self._recording.attempts
        failed = sum(bool(a.finished and a.answer is None) for a in attempts)
        open_ = sum(not a.finished for a in attempts)
        others = [f"{count} {name}" for count, name in ((failed, "failed"), (open_, "unfinished")) if count]
        sure = [percent(confidence) for confidence in self._recording.confidences[-LATEST:]]
        return [
            f"votes: {', '.join([*votes, *others]) or 'none'}",
            f"confidence: {', then '.join(sure) or 'none'}",
            f"search: {self._search()}; {self._spent()}",
        ]

    def _rows(self, room: int) -> list[Attempt]:
        """The candidates there is room for: those under way, then the latest others, in order."""
        attempts = self._recording.attempts
        wanted = sorted(attempts, key=lambda a: (a.finished, -a.number))[: max(0, room)]
        return sorted(wanted, key=lambda a: a.number)

    def _search(self) -> str:
        difficulty = self._recording.difficulty
        parts = [self._recording.strategy or "sampling"]
        parts += [] if difficulty is None else [f"difficulty {difficulty + 1} of 5"]
        return ", ".join(parts)

    def _votes(self, groups: list[AnswerGroup]) -> list[Text]:
        total = sum(len(group.attempts) for group in self._groups)
        answers = [one_line(group.answer)[:LONGEST_ANSWER] for group in groups]
        width = max(map(len, answers), default=0)
        lines = []
        for group, answer in zip(groups, answers, strict=True):
            count = len(group.attempts)
            bar = "█" * max(1, round(BAR * count / total))
            lines.append(Text.assemble(f"{answer:>{width}} ", (f"{bar:{BAR}}", "blue"), f" {count}"))
        return lines

    def _best(self) -> Text:
        best, confidence = self._recording.best, self._recording.confidence
        if explanation := one_line(self._recording.explanation):
            return Text(f"explaining: {explanation}")
        if best is None:
            return Text("no answer yet", "dim")
        line = f"best so far: {one_line(best.answer)}"
        return Text(line) if confidence is None else Text(f"{line} ({sureness(confidence)})", STYLES[level(confidence)])

    def _candidate(self, attempt: Attempt, width: int) -> Text:
        score = "" if attempt.score is None else f" {attempt.score:.2f}"
        head = f"#{attempt.number}{score} "
        if attempt.error:
            return Text(f"{head}✗ {one_line(attempt.error)}", "dim")
        if attempt.finished and attempt.answer is None:
            return Text(f"{head}✗ no answer", "dim")
        head += f"✓ {one_line(attempt.answer)} · " if attempt.answer is not None else "… "
        head += "doubtful · " if attempt.doubts else ""
        steps = one_line(" | ".join(attempt.steps))
        room = max(1, width - len(head) - 1)
        return Text.assemble((head, "bold"), steps if len(steps) <= room else "…" + steps[1 - room :])

    def _spent(self) -> str:
        recording = self._recording
        most = f" of at most {self._deadline_s:g} s" if self._deadline_s else ""
        ended = sum(attempt.finished for attempt in recording.attempts)
        samples = f" of at most {self._samples}" if self._samples else ""
        return f"{duration(recording.seconds)}{most}, {ended}{samples} samples ended"
