"""What ``solve`` and ``chat`` ask for: how questions are asked, and the solver that is opened for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edge_tts.commands.options import overlaid
from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from edge_tts.core import Budget
    from edge_tts.questions.results import Settings
    from edge_tts.reasoning.question_kind import AnswerKind
    from edge_tts.search.call import Format, Options
    from edge_tts.solver import Solver


@dataclass(frozen=True)
class Asking:
    """How every question of a run is asked."""

    strategy: str
    limits: Budget
    seed: int = 0
    kind: AnswerKind | None = None
    format: Format = "auto"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Settings that take the place of the model's own; None and () leave them."""
    explain: bool = False
    """Whether the answer is explained in words afterwards."""
    total: Budget | None = None
    """What all questions of a file may cost together."""
    least: float | None = None
    """Confidence in [0, 1] below which no answer is given."""

    def options(self, solver: Solver) -> Options:
        """The options of a call of ``solver``."""
        given = {name: value for name, value in self.sampling.items() if name != "max_tokens"}
        options: Options = {"kind": self.kind, "format": self.format, "max_tokens": self.sampling.get("max_tokens")}
        if self.explain:
            options["explain"] = True
        if any(value not in (None, ()) for value in given.values()):
            options["sampling"] = overlaid(solver.pack.sampling, given)
        return options

    def settings(self, solver: Solver) -> Settings:
        """The same for a file of results."""
        from edge_tts.escalation.solver import EscalatingSolver
        from edge_tts.questions.results import Settings

        given = {name: value for name, value in self.sampling.items() if value not in (None, ())}
        others: dict[str, Any] = {"explain": True} if self.explain else {}
        if isinstance(solver, EscalatingSolver):
            others |= {"escalate": solver.to, "below": solver.below}
        if self.least is not None:
            others["min_confidence"] = self.least
        if self.total is not None:
            others["total"] = {name: value for name, value in asdict(self.total).items() if value is not None}
        how = (self.kind, self.format, given, others)
        return Settings(self.strategy, self.limits, self.seed, solver.pack.title, solver.calculator, *how)

    def most_samples(self, solver: Solver) -> int:
        """Most generations that a question may take."""
        from edge_tts.search.call import AUTO
        from edge_tts.search.strategy import Strategy

        generations = self.limits.generations or solver.plan.generations
        return generations if self.strategy == AUTO else Strategy.parse(self.strategy, generations).generations


@dataclass(frozen=True)
class Loading:
    """What is loaded, and its limits; see :func:`edge_tts.commands.options.model_options`."""

    model: str | None = None
    pack: str | None = None
    profile: str | None = None
    memory: float | None = None
    deadline: float | None = None
    prompt_tokens: int | None = None
    calculator: bool = True
    escalate: str | None = None
    """A larger model, or an endpoint, for answers with less confidence than ``below``."""
    below: float = 0.5
    prices: tuple[float, float] | None = None
    """Of an endpoint's million prompt tokens and million new tokens."""

    def of_model(self, name: str) -> Loading:
        """The same with the model ``name``."""
        return replace(self, model=name, pack=None)

    def plan(self, asking: Asking) -> None:
        """Raise what :meth:`open` would raise before it loads anything."""
        from edge_tts.packs.planned import DEFAULT_GENERATIONS, plan
        from edge_tts.search.call import uses_verifier

        plan(
            self.pack,
            self.profile,
            self.memory,
            self.deadline,
            generations=asking.limits.generations or DEFAULT_GENERATIONS,
            prompt_tokens=self.prompt_tokens,
            verifier=uses_verifier(asking.strategy),
            model=self.model,
            max_tokens=asking.sampling.get("max_tokens"),
        )

    def open(self, asking: Asking, errors: Console) -> Solver:
        """A solver sized for ``asking``; what it downloads or assembles is shown on ``errors``."""
        from edge_tts.packs.planned import DEFAULT_GENERATIONS
        from edge_tts.search.call import uses_verifier

        with progress_bar(errors) as progress:
            solver = open_solver(
                self.escalate,
                self.below,
                self.prices,
                pack=self.pack,
                profile=self.profile,
                memory_mb=self.memory,
                deadline_s=self.deadline,
                generations=asking.limits.generations or DEFAULT_GENERATIONS,
                prompt_tokens=self.prompt_tokens,
                calculator=self.calculator,
                verifier=uses_verifier(asking.strategy),
                progress=progress,
                model=self.model,
                max_tokens=asking.sampling.get("max_tokens"),
            )
        if solver.choice:
            line = f"{solver.pack.title}: {solver.choice}; --model chooses another"
            errors.print(line, style="dim", soft_wrap=True)
        return solver


def open_solver(
    escalate: str | None, below: float, prices: tuple[float, float] | None = None, **settings: Any
) -> Solver:
    """A solver with ``settings``; one that hands questions over where ``escalate`` names a larger model.

    Raises InputError for ``prices`` without it.
    """
    from edge_tts.escalation.solver import EscalatingSolver
    from edge_tts.solver import Solver

    if escalate:
        return EscalatingSolver(escalate, below, prices, **settings)
    if prices:
        raise InputError("--prices are those of the endpoint that --escalate names; name one, or leave them out")
    return Solver(**settings)
