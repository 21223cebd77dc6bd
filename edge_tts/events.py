"""What a search tells while it goes on, and what it gives at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_tts.core import StepValue, Trace, Usage

# --- events of a search, in the order a caller sees them -------------------------------------


@dataclass(frozen=True)
class DifficultyEstimated:
    """The probe is done: bin 0 (easiest) to 4 (hardest), score in [0, 1] (higher is easier)."""

    bin: int
    score: float


@dataclass(frozen=True)
class StrategyChosen:
    """What will be run, and why."""

    strategy: str
    reason: str


@dataclass(frozen=True)
class StepTaken:
    """Candidate ``candidate`` grew by a step."""

    candidate: int
    text: str
    finished: bool
    steps: tuple[str, ...] = ()
    """All its steps, this one last; where it goes on from another candidate, that one's come first."""
    values: tuple[StepValue, ...] = ()
    """What the step assigned, in the program format."""
    error: str = ""
    """Why the candidate ended without an answer, in the program format."""
    doubts: tuple[str, ...] = ()
    """What its steps state that does not hold, such as "12 * 8 = 98"."""
    answer: str | None = None
    """What the candidate answers, once it is finished."""

    @property
    def told(self) -> str:
        """``text`` for people: a program's line with what it assigned, and the fence that ends it in words."""
        if self.values and self.steps:
            return self.steps[-1]
        return "(end of the program)" if self.text.strip() == "```" else self.text


@dataclass(frozen=True)
class CandidateScored:
    """The verifier scored candidate ``candidate``; ``score`` is its aggregate in [0, 1]."""

    candidate: int
    score: float


@dataclass(frozen=True)
class BestSoFar:
    """The answer that would be returned if the search stopped now; told when it or its confidence changes."""

    answer: str
    score: float
    confidence: float = 0.0
    """Probability in [0, 1] that it is right."""


@dataclass(frozen=True)
class Decided:
    """What the controller does after a wave of samples, and why."""

    action: str
    """"stop", "sample", "other" for another way of asking, or "escalate"."""
    samples: int
    """How many samples of the question there are."""
    confidence: float
    """Probability in [0, 1] that the leading answer is right."""
    reason: str
    gain: float = 0.0
    """How much more samples are expected to raise the confidence, in [-1, 1]."""


@dataclass(frozen=True)
class Explained:
    """A part of the explanation in words that was asked for."""

    text: str
    """As it comes, white space included."""


Event = DifficultyEstimated | StrategyChosen | StepTaken | CandidateScored | BestSoFar | Decided | Explained


@dataclass(frozen=True)
class Outcome:
    """What a search found."""

    best: Trace | None
    """The chosen finished trace, or None where nothing finished."""
    traces: tuple[Trace, ...]
    """Every trace the search touched and kept, finished or not."""
    stop_reason: str
    """"complete", "decided" (the vote was settled early), "sure" (the confidence is enough), "no gain" (more samples
    would hardly change the answer), "deadline", "budget: ..." or "cancelled"."""
    support: float = 0.0
    """Share of the (weighted) vote the chosen answer got, in [0, 1]."""
    dropped_scores: int = 0
    """Traces whose verifier scores were not in [0, 1]; they counted as scored 0."""
    confidence: float = 0.0
    """Probability in [0, 1] that the chosen answer is right; 0 without an answer."""
    voted: tuple[Trace, ...] = ()
    """The traces that took part in the choice, each as often as it counted."""


@dataclass(frozen=True)
class Difficulty:
    """Predicted difficulty: bin 0 (easiest) to 4 (hardest) and the probe's score in [0, 1]."""

    bin: int
    score: float


@dataclass(frozen=True)
class Escalated:
    """That a question was handed over to a larger model, and what that took."""

    model: str
    where: str
    """"this machine", or the endpoint's address without credentials."""
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    price: float | None = None
    """In the currency of the prices that were given; None where there are none, or the endpoint tells no tokens."""
    answer_before: str | None = None
    """The small model's."""
    confidence_before: float = 0.0
    kept: bool = True
    """Whether the larger model's answer was taken."""


@dataclass(frozen=True)
class Result:
    """One answered question, with everything it cost."""

    answer: str | None
    """None where no trace finished."""
    steps: tuple[str, ...]
    """Steps of the chosen trace."""
    finished: bool
    strategy: str
    reason: str
    """Why this strategy was run."""
    difficulty: Difficulty | None
    """None where the strategy was not chosen by difficulty."""
    stop_reason: str
    """As in :class:`Outcome`."""
    support: float
    """Share of the (weighted) vote the answer got, in [0, 1]."""
    usage: Usage
    seed: int
    prompt_tokens: int
    """Tokens of the question in the policy's template."""
    scores: tuple[float, ...] = ()
    """Verifier scores of ``steps``, each in [0, 1]; empty where they were not scored."""
    dropped_scores: int = 0
    """As in :class:`Outcome`."""
    values: tuple[tuple[StepValue, ...], ...] = ()
    """What each of ``steps`` assigned, in the program format."""
    text: str = ""
    """All the chosen trace says, its thinking included, in formats whose steps are not all there is."""
    partial: tuple[str, ...] = ()
    """Where there is no answer: the steps of the trace that got furthest."""
    notes: tuple[str, ...] = ()
    """What was done to messages that the model's chat template does not take as they are, and scores that were
    dropped."""
    format: str = ""
    """How the policy reasoned: "text", "program" or "equations"."""
    confidence: float = 0.0
    """As in :class:`Outcome`."""
    explanation: str = ""
    """How the answer is found, in the policy's words, where that was asked for."""
    escalation: Escalated | None = None
    """Where a larger model was asked too; its policy tokens, FLOPs and seconds are part of ``usage``."""
    votes: tuple[tuple[str, float], ...] = ()
    """Answers and their share of the vote, in [0, 1], most first; weighted by verifier scores where the strategy is."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Done:
    """The last event: the answer and everything it cost."""

    result: Result
