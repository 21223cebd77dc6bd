"""What a caller asks of a solver: the arguments of one call, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypedDict

from edge_tts.core import Budget, Sampling
from edge_tts.errors import InputError
from edge_tts.reasoning.formats import TRACE_TOKENS, FormatName
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.question_kind import AnswerKind, as_kind
from edge_tts.search.ledger import SharedBudget
from edge_tts.search.selection import Aggregate
from edge_tts.search.strategy import Strategy

AUTO = "auto"

Format: TypeAlias = Literal["auto", "text", "program"]

Messages: TypeAlias = "str | Iterable[Message | Mapping[str, object]]"
"""A question, or a chat whose last message asks it."""


class Options(TypedDict, total=False):
    """What a call of a :class:`Solver` may set besides question, strategy, budget and seed."""

    sampling: Sampling | None
    """Takes the place of the pack's, its limit of tokens included."""
    max_tokens: int | None
    """New tokens a trace may take, at least 1; as the format has it by default."""
    format: Format
    """How a chat model reasons: in words, or as a program whose lines are run. "auto" takes programs where the model is
    good at them and the question is a computation."""
    kind: AnswerKind | None
    """The kind of answer wanted: "math", "choice", "yes-no" or "text"; told from the question by default."""
    aggregate: Aggregate
    """How the step scores of a trace become one number; "last" by default."""
    explain: bool
    """Have a chat model explain its answer in two or three sentences afterwards."""
    shared: SharedBudget | None
    """What this call spends together with others."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call. Raises InputError where one has the wrong type."""

    question: Messages
    strategy: str
    budget: Budget
    seed: int = 0
    sampling: Sampling | None = None
    max_tokens: int | None = None
    format: Format = "auto"
    kind: AnswerKind | None = None
    aggregate: Aggregate = "last"
    explain: bool = False
    shared: SharedBudget | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("strategy", str), ("budget", Budget), ("seed", int)):
            if not isinstance(value := getattr(self, name), kinds):
                raise InputError(f"{name} must be of type {kinds.__name__}; got {value!r}")
        if not isinstance(self.sampling, Sampling | None):
            raise InputError(f"sampling must be a Sampling; got {self.sampling!r}")
        if self.kind is not None:
            as_kind(self.kind)
        if self.format not in ("auto", "text", "program"):
            raise InputError(f"format must be auto, text or program; got {self.format!r}")

    def asked(self, generations: int) -> Strategy | None:
        """The strategy that is asked for, sized to the budget; None for "auto"."""
        return None if self.strategy == AUTO else Strategy.parse(self.strategy, self.budget.generations or generations)

    def sampled(self, usual: Sampling, format: FormatName) -> Sampling:
        """How traces in ``format`` are drawn, where ``usual`` is the pack's way."""
        sampling = self.sampling or usual
        tokens = sampling.max_tokens
        if format == "program" and tokens == usual.max_tokens:  # the limit is the model's, not the caller's
            tokens = min(tokens, TRACE_TOKENS["program"])
        return replace(sampling, max_tokens=self.max_tokens or tokens)


def uses_verifier(strategy: str) -> bool:
    """Whether scores make a difference to ``strategy``, "auto" included. Raises InputError for an unknown one."""
    return strategy == AUTO or Strategy.parse(strategy).uses_verifier
