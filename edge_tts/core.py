"""The contracts between the parts: policies, verifiers, steps, traces, usage and events.

Everything here is data or a Protocol; nothing imports a backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, Self, TypeAlias

from edge_tts.cancellation import Cancellation
from edge_tts.errors import InputError

StopReason = Literal["step", "end", "length", "cancelled"]
"""Why a request stopped: its step limit, an end token, its token limit, or deadline/cancellation."""


LEAST_TEMPERATURE = 0.01
"""Logits are divided by the temperature: a much smaller one overflows float32, and means greedy anyway."""


@dataclass(frozen=True)
class Sampling:
    """How a policy draws tokens: top-k, then top-p, then min-p, then the temperature, as llama.cpp does.

    Raises InputError for a value out of range.
    """

    temperature: float = 0.8
    """0 is greedy; otherwise at least ``LEAST_TEMPERATURE``."""
    top_k: int = 40
    """Candidates kept before drawing; 0 keeps the whole vocabulary."""
    max_tokens: int = 200
    """Most new tokens of one request, forced ones included; at least 1."""
    ignore_end: bool = False
    """Go on past end tokens up to ``max_tokens``: for measuring speed over a known shape."""
    top_p: float = 1.0
    """Keep the most likely candidates that together reach this probability; in (0, 1], 1 keeps all."""
    min_p: float = 0.0
    """Keep candidates at least this share as likely as the most likely one; in [0, 1), 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Texts that end a request as an end token does, wherever they begin; they are no part of the step's text."""

    def __post_init__(self) -> None:
        if self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature < math.inf:
            raise InputError(f"temperature must be 0 or at least {LEAST_TEMPERATURE}; got {self.temperature:g}")
        if self.top_k < 0:
            raise InputError(f"top_k must be at least 0 (0 keeps all tokens); got {self.top_k}")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1; got {self.max_tokens}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1; got {self.top_p:g}")
        if not 0 <= self.min_p < 1:
            raise InputError(f"min_p must be at least 0 and below 1; got {self.min_p:g}")
        if not all(self.stop):
            raise InputError("a stop text must not be empty; leave it out")


StepWriter: TypeAlias = "Callable[[str], str | None]"
"""Given a step as far as it is written, the text to put behind it, or None."""


@dataclass(frozen=True)
class Request:
    """One continuation wanted from a policy.

    The prefix is given as tokens; a policy recognises prefixes it has already evaluated and forks
    its KV cache instead of evaluating them again, so callers keep no handles.
    """

    tokens: tuple[int, ...]
    """Prompt and everything generated so far; at least one token."""
    seed: int
    sampling: Sampling = Sampling()
    max_steps: int | None = None
    """Stop after this many steps; None runs to the end of the trace."""
    delimiter: str = "\n"
    """What ends a step."""
    writes: StepWriter | None = None
    """Asked after every token; what it gives becomes part of the sequence, as forced tokens."""
    family: int | None = None
    """Requests of one search have the same number: later calls draw from what earlier ones evaluated, where a policy
    keeps it."""


@dataclass(frozen=True)
class StepEvent:
    """A policy finished one step of one request."""

    request: int
    """Index into the sequence of requests handed to ``generate``."""
    text: str
    """The step without its delimiter; may be empty when a request is cut short."""
    tokens: tuple[int, ...]
    """New tokens of this step, its delimiter or end token included."""
    logprob: float
    """Sum of the sampled tokens' log-probabilities (temperature 1); forced tokens count 0."""
    prefill_tokens: int
    """Prefix tokens that had to be evaluated for this step (0 where the KV cache had them)."""
    forced_tokens: int
    """How many of ``tokens`` the request's ``writes`` put there."""
    stop: StopReason | None
    """None while the request goes on; its last event carries the reason."""
    shared_tokens: int = 0
    """New tokens, of this event and the one before, that were evaluated once for several requests of this ``generate``
    call whose tokens were equal so far, and are charged to another of them."""


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded policy or verifier is, and where it runs."""

    name: str
    parameters: int
    """Weights that take part in a forward pass, for FLOPs = 2 x parameters x tokens."""
    context_length: int
    """Most tokens of one sequence."""
    device: str
    """"cpu", or what computes on a GPU: "cuda", "vulkan", "metal" ..."""
    reason: str
    """Why that device was chosen, as one clause."""


@dataclass(frozen=True)
class ChatModelInfo:
    """What a model's file says about chatting with it."""

    template: str | None = None
    """Jinja source of its chat template; None where the file has none."""
    bos: str = ""
    """Text of the token that begins a sequence; empty where the vocabulary has none."""
    eos: str = ""
    """Text of the token that ends a sequence; empty where the vocabulary has none."""
    adds_bos: bool = False
    """Whether the model expects every sequence to begin with ``bos``; ``tokenize`` never adds it."""


@dataclass(frozen=True)
class SpecialToken:
    """A control token of a vocabulary."""

    token: int
    text: str
    strips_left: bool = False
    """White space before it is not tokenised."""
    strips_right: bool = False
    """White space after it is not tokenised."""


StepEvents: TypeAlias = "Generator[StepEvent, Sequence[int] | None, None]"


class Policy(Protocol):
    """A language model that continues token sequences, many at once."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def chat_model(self) -> ChatModelInfo: ...

    @property
    def width(self) -> int:
        """Sequences decoded together; more requests than this wait their turn."""

    def special(self, token: int) -> SpecialToken | None:
        """``token`` where it is one that text of users must not become, such as ``<|im_end|>``; else None."""

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        """Token ids of ``text``; none is added.

        With ``special``, special tokens written in it such as ``<|im_end|>`` become those tokens: for a
        template's own pieces. Text of users, models and documents goes without, and stays text.
        """

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        """Yield step events of all requests as they come, until each has stopped.

        Indices sent back to the generator name requests that are not wanted any more. Each of them ends with one
        more event, "cancelled", that carries the tokens of its unfinished step.

        ``deadline`` is a ``time.monotonic()`` instant; requests unfinished then end with
        "cancelled". Closing the generator cancels what is left, and so does ``cancel``: the generator
        then ends at once, without further events. Raises InputError for a prefix that leaves no room
        in the context, BackendError when the runtime fails.
        """

    def close(self) -> None:
        """Release everything; idempotent."""


@dataclass(frozen=True)
class Scored:
    """Step scores of one trace and what they cost."""

    scores: tuple[float, ...]
    """One score in [0, 1] per step."""
    tokens: int
    """Verifier tokens evaluated for this trace (0 where everything was known already)."""


class Verifier(Protocol):
    """A process reward model: scores every step of every trace."""

    @property
    def info(self) -> ModelInfo: ...

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        """Scores for each trace (a sequence of step texts) of ``question``, in order.

        A prefix of steps that was scored before is not evaluated again where the model allows it.
        Once ``cancel`` is requested it ends at once, with the scores of the first traces only.
        """

    def seconds(self, tokens: int) -> float:
        """Predicted wall time of evaluating ``tokens`` more tokens, from what was seen so far."""

    def close(self) -> None:
        """Release everything; idempotent."""


@dataclass(frozen=True)
class StepValue:
    """What a step assigned."""

    name: str
    value: str
    """As people write it: "76", "0.3", "Yes"."""


@dataclass(frozen=True)
class Trace:
    """A question and the steps taken so far."""

    tokens: tuple[int, ...]
    """Prompt and steps, as the policy saw them."""
    steps: tuple[str, ...] = ()
    finished: bool = False
    """True after an answer marker or an end token; never for having run out of tokens."""
    answer: str | None = None
    """Text after the answer marker, or None where there is none."""
    scores: tuple[float, ...] = ()
    """Step scores, empty until scored."""
    logprob: float = 0.0
    text: str = ""
    """Everything generated, in formats whose steps are not all there is to show."""
    vote: str = ""
    """What answers that mean the same have in common, where that is not for arithmetic to say; else empty."""
    values: tuple[tuple[StepValue, ...], ...] = ()
    """In the program format, what each of ``steps`` assigned or changed; empty where it only defines something."""
    variables: tuple[StepValue, ...] = ()
    """In the program format, all plain variables after the last line that was run."""
    error: str = ""
    """Why a program is no solution: an error of Python, or what it lacks. Then it is finished, without an answer."""
    run_seconds: float = 0.0
    """Interpreter time so far."""
    weight: float = 1.0
    """How much its vote counts; at least 0."""
    doubts: tuple[str, ...] = ()
    """What its steps state that does not hold, such as "12 * 8 = 98"."""

    prompt_tokens: int = 0
    """How many of ``tokens`` are the prompt."""

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of a new token; at most 0."""
        return self.logprob / max(1, len(self.tokens) - self.prompt_tokens)

    def extended(self, event: StepEvent, answer_marker: str) -> Trace:
        """This trace with one more step. An empty step adds its tokens only.

        A step cut by a token limit or a deadline answers nothing: "#### 7" may have been meant to be "#### 72".
        """
        text, marker = event.text.strip(), answer_marker.strip()
        cut = event.stop in ("length", "cancelled")
        answer = text.removeprefix(marker).strip() if text.startswith(marker) and not cut else None
        return replace(
            self,
            tokens=self.tokens + event.tokens,
            steps=(*self.steps, text) if text else self.steps,
            finished=self.finished or answer is not None or event.stop == "end",
            answer=answer or self.answer,
            logprob=self.logprob + event.logprob,
        )


@dataclass(frozen=True)
class Usage:
    """What an answer cost. Everything is counted: difficulty estimation, verifier, abandoned work."""

    policy_tokens: int = 0
    """Tokens evaluated by the policy: prompt, generated and forced; what samples begin with alike counts once."""
    generated_tokens: int = 0
    """New text of all samples together."""
    forced_tokens: int = 0
    """The part of ``generated_tokens`` that the runtime wrote into the sequences, as the calculator does."""
    verifier_tokens: int = 0
    policy_flops: float = 0.0
    """2 x parameters x tokens."""
    verifier_flops: float = 0.0
    verifier_seconds: float = 0.0
    interpreter_seconds: float = 0.0
    """Spent on running programs."""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    """Peak resident memory of the process, in MiB."""
    generations: int = 0
    """Full traces, or their equivalent in candidates, that were started."""

    def __add__(self, other: Self) -> Usage:
        return Usage(
            self.policy_tokens + other.policy_tokens,
            self.generated_tokens + other.generated_tokens,
            self.forced_tokens + other.forced_tokens,
            self.verifier_tokens + other.verifier_tokens,
            self.policy_flops + other.policy_flops,
            self.verifier_flops + other.verifier_flops,
            self.verifier_seconds + other.verifier_seconds,
            self.interpreter_seconds + other.interpreter_seconds,
            self.seconds + other.seconds,
            max(self.peak_memory_mb, other.peak_memory_mb),
            self.generations + other.generations,
        )


@dataclass(frozen=True)
class Budget:
    """Upper bounds on one answer's cost; None leaves a dimension unbounded. Raises InputError for one not above 0."""

    generations: int | None = None
    """Full traces (or their equivalent in beam candidates), at least 1."""
    tokens: int | None = None
    """Policy tokens."""
    flops: float | None = None
    """Policy plus verifier."""
    seconds: float | None = None
    """Wall time from the call, the deadline; above 0."""
    joules: float | None = None
    """Energy, from the profile's power figure."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise InputError(f"a budget of {value} {field.name} is none; give more than 0, or leave it out")
