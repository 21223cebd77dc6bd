"""A stand-in for a solver that answers at once: for what happens to files of questions and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from edge_tts.commands.question_file import solve_lines
from edge_tts.core import Budget, Usage
from edge_tts.events import Done, Escalated, Result
from edge_tts.questions.lines import question_lines
from edge_tts.questions.results import Settings


def answer(question: str) -> str:
    """Its number of letters."""
    return str(len(question))


@dataclass
class ScriptedSolver:
    """Answers what ``answer_fn`` says, and raises what it raises."""

    answer_fn: Callable[[str], str | None] = answer
    seconds: float = 0.0
    """What a question takes."""
    asked: list[str] = field(default_factory=list)
    confidence: Mapping[str, float] = field(default_factory=dict)
    """By question; 0 of those that are not named."""
    escalation: Mapping[str, Escalated] = field(default_factory=dict)
    deadline_s: float | None = None
    policy: Any = field(default_factory=lambda: SimpleNamespace(width=8))
    plan: Any = field(default_factory=lambda: SimpleNamespace(generations=8))

    def stream(
        self, question: str, strategy: str, budget: Budget, seed: int, **_: object
    ) -> Generator[Done, None, None]:
        self.asked.append(question)
        time.sleep(self.seconds)
        found = self.answer_fn(question)
        steps = () if found is None else (f"#### {found}",)
        result = Result(found, steps, found is not None, strategy, "asked for", None, "complete", 1.0, USAGE, seed, 9)
        confidence = self.confidence.get(question, 0.0)
        yield Done(replace(result, confidence=confidence, escalation=self.escalation.get(question)))


USAGE = Usage(policy_tokens=10, generated_tokens=5, seconds=0.1)


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {
        "strategy": "majority",
        "budget": Budget(generations=2),
        "seed": 0,
        "pack": "p 1",
        "calculator": True,
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def run(
    solver: ScriptedSolver, file: Path, out: Path, how: Settings | None = None, parallel: int = 1
) -> tuple[int, str]:
    """Exit code and what was printed."""
    console = Console(width=500, record=True, quiet=False, file=_Nowhere())
    code = solve_lines(
        solver,
        question_lines(file),
        out,
        how or settings(),
        {},
        parallel,
        console,  # type: ignore[arg-type]
    )
    return code, console.export_text()


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """No file of this process may become longer than ``size`` bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
