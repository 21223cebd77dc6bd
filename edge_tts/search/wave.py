"""What strategies and the driver say to each other: candidates, waves, and how a strategy ends.

A strategy is a generator. It yields a :class:`Wave`, the driver carries the wave out and sends back the
candidates of that wave as they are now, and so on until the strategy returns an :class:`End`. The driver
sends back fewer candidates, or none, once the budget, the deadline or the caller ends the search.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from edge_tts.answers.formulas import Timeout
from edge_tts.core import Trace
from edge_tts.events import Event
from edge_tts.search.selection import Choice


@dataclass(frozen=True)
class Candidate:
    """One attempt at the question, as far as it has got."""

    id: int
    """Its place in the order in which the candidates of a search began."""
    name: int
    """The number that events give it; several candidates may have one name, such as the attempts of a chain."""
    trace: Trace
    prompt_tokens: int
    """How many of the trace's tokens are its prompt."""
    room: int
    """New tokens it may still get."""
    way: int = 0
    """Which of the task's ways of asking it answers."""

    @property
    def can_grow(self) -> bool:
        return not self.trace.finished and self.room > 0


@dataclass(frozen=True)
class Start:
    """A candidate to begin: from the question, behind earlier attempts, or as a branch of another candidate."""

    name: int
    parent: Candidate | None = None
    """Go on from this candidate's trace, and leave that one as it is."""
    attempts: tuple[Trace, ...] = ()
    """Attempts to show in the prompt, oldest first."""
    way: int = 0
    """Which of the task's ways of asking it takes; that of the parent where there is one."""


@dataclass(frozen=True)
class Wave:
    """What to do next: new candidates and unfinished ones grow together, in one batch."""

    starts: tuple[Start, ...] = ()
    resume: tuple[Candidate, ...] = ()
    """Candidates that grow on; finished ones among them stay as they are."""
    steps: int | None = None
    """Most steps each of them grows by; None lets them run to their ends."""
    greedy: bool = False
    """Temperature 0 instead of the caller's sampling."""
    generations: int = 1
    """What each start takes from a budget in generations."""
    score: Literal["none", "answers", "grown", "all"] = "none"
    """What the verifier scores when the wave has grown: nothing, the candidates that have an answer, those that grew
    and either finished or can grow on, or all."""
    give_up: float = 0.0
    """Candidates that are not finished and whose last step scores below this when the wave has grown end there."""
    reserve: int = 0
    """How many candidates will be scored at the end of the search, for which the policy leaves time."""

    @classmethod
    def samples(cls, count: int, first_name: int = 0, way: int = 0) -> tuple[Start, ...]:
        """``count`` starts from the question, asked in ``way``, named from ``first_name`` on."""
        return tuple(Start(first_name + i, way=way) for i in range(max(0, count)))


@dataclass(frozen=True)
class End:
    """How a strategy ends."""

    candidates: Sequence[Candidate]
    """Those it kept, in the order in which :class:`~edge_tts.events.Outcome` reports them."""
    reason: str | None = None
    """"decided", "sure" or "no gain" where it stopped before its size was used up; None leaves it to the driver."""


Waves: TypeAlias = "Generator[Wave | Event, list[Candidate], End]"


class Proposer(Protocol):
    """A strategy for one search."""

    @property
    def needs_verifier(self) -> bool:
        """Whether it cannot run without a verifier."""

    @property
    def uses_scores(self) -> bool:
        """Whether scores of finished candidates make a difference to its choice."""

    @property
    def eager(self) -> bool:
        """Whether its choice so far is worth announcing while a wave is growing."""

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        """Propose waves. ``initial`` candidates were sampled earlier in the same search."""

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        """The choice among all candidates of the search so far; ``timeout`` bounds comparing formulas."""


def traces(candidates: Sequence[Candidate]) -> list[Trace]:
    """The traces of ``candidates``, in order."""
    return [candidate.trace for candidate in candidates]
