"""A pool of samples that serves every budget and every strategy that only chooses among samples.

A pool is drawn and scored once. Strategies are then run over it (:mod:`edge_tts.bench.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from edge_tts.answers.equivalence import is_correct
from edge_tts.answers.formulas import Timeout
from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    Budget,
    Policy,
    Request,
    Sampling,
    Scored,
    StepEvent,
    StepEvents,
    StopReason,
    Trace,
)
from edge_tts.errors import InputError
from edge_tts.files.json_lines import read_lines
from edge_tts.questions.reading import Question
from edge_tts.reasoning.formats import Asked
from edge_tts.search.call import AUTO, Call
from edge_tts.search.driver import Driver, Task, derived_seed
from edge_tts.search.ledger import Ledger
from edge_tts.search.selection import Choice, voters
from edge_tts.search.strategy import Kind
from edge_tts.search.wave import Candidate, End, Wave, Waves
from edge_tts.solver import Solver

SAMPLING_KINDS: tuple[Kind, ...] = ("greedy", "majority", "adaptive", "best-of-n", "weighted")
"""What a pool can serve."""


def problem_seed(seed: int, id: str) -> int:
    """The seed a search of problem ``id`` starts from in a study's ``seed``.

    With one and the same, sample i of every problem would be drawn by the same random numbers: their rights and
    wrongs would go together, and intervals over problems be too narrow.
    """
    return derived_seed(seed, id)


@dataclass(frozen=True)
class Part:
    """One step event of a sample."""

    text: str
    tokens: int
    logprob: float
    forced: int


@dataclass(frozen=True)
class Sample:
    """One trace as it was drawn."""

    tokens: tuple[int, ...]
    """All new tokens."""
    parts: tuple[Part, ...]
    stop: StopReason | None
    """None where the trace had its answer and the rest was not waited for."""
    steps: tuple[str, ...]
    answer: str | None
    """None also where it did not finish."""
    correct: bool
    error: str = ""
    """Why a program is no solution."""
    scores: tuple[float, ...] = ()
    """Step scores; empty without a verifier or an answer."""
    verifier_tokens: int = 0
    """What scoring it cost after the samples before it."""


@dataclass(frozen=True)
class Pool:
    """The samples of one problem and seed; sample i was drawn with the seed of a search's i-th request."""

    id: str
    seed: int
    """The study's."""
    prompt: tuple[int, ...]
    """Tokens every sample continues."""
    samples: tuple[Sample, ...]
    greedy: Sample | None
    """One more at temperature 0, where it was wanted."""
    seconds: float = 0.0
    """The machine's time, of which pools that share a batch each get a part."""
    prefill: int | None = None
    """Tokens of the prompt that had to be evaluated; fewer than all where earlier prompts began alike. None: all."""

    @property
    def prompt_cost(self) -> int:
        """Tokens that the policy evaluated for the prompt."""
        return len(self.prompt) if self.prefill is None else self.prefill

    @classmethod
    def parse(cls, row: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote. Raises msgspec.ValidationError for anything else."""
        return msgspec.convert(row, cls)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def read_pools(path: Path, wanted: Callable[[str, int], bool]) -> Iterator[Pool]:
    """The pools of a file whose problem id and seed are ``wanted``. Raises InputError naming a line that is none."""
    for number, row in read_lines(path):
        try:
            if wanted(row["id"], row["seed"]):
                yield Pool.parse(row)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise InputError(f"{path}, line {number}: not a pool of samples ({error!r})") from error


def draw(
    solver: Solver,
    question: Question,
    size: int,
    seed: int,
    greedy: bool,
    stopped: Callable[[], bool],
    asked: Asked | None = None,
) -> Pool | None:
    """Draw and score ``size`` samples, and one at temperature 0 with ``greedy``; None once ``stopped``.

    ``asked`` is the question as the solver asks it, in a format of the caller's choice. Raises InputError for a
    question that fills the context.
    """
    asked = asked or solver.asked(question.question)
    recorder = Recorder(solver.policy)
    task = Task(question.question, asked, sampling(solver, asked), seed=problem_seed(seed, question.id))
    driver = Driver(task, recorder, None, Ledger(solver.policy.info))
    with closing(driver.run(_Samples(size, greedy))) as search:
        try:
            while not stopped():
                next(search)
            return None
        except StopIteration as end:
            traces = end.value.traces
    scored = _scores(solver, question, traces)
    samples = [_sample(e, t, question, scored) for e, t in zip(recorder.events, traces, strict=True)]
    prefill = max((events[0].prefill_tokens for events in recorder.events if events), default=0)
    last = samples[size] if greedy else None
    return Pool(question.id, seed, driver.root, tuple(samples[:size]), last, prefill=prefill)


def sampling(solver: Solver, asked: Asked) -> Sampling:
    """How the solver draws traces of ``asked`` where the caller sets nothing."""
    return Call(asked.name, AUTO, Budget()).sampled(solver.pack.sampling, asked.name)


@dataclass
class _Samples:
    """All samples as one wave, then one more at temperature 0 with ``greedy``."""

    size: int
    greedy: bool
    needs_verifier = uses_scores = eager = False

    def waves(self, initial: Sequence[Candidate]) -> Waves:
        grown = yield Wave(Wave.samples(self.size))
        if self.greedy:
            grown += yield Wave(Wave.samples(1, self.size), greedy=True)
        return End(grown)

    def choose(self, candidates: Sequence[Candidate], timeout: Timeout) -> Choice:
        return Choice()


class Recorder:
    """A policy that remembers the events of every request."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.info, self.chat_model, self.width = policy.info, policy.chat_model, policy.width
        self.special, self.tokenize = policy.special, policy.tokenize
        self.events: list[list[StepEvent]] = []

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        first = len(self.events)
        self.events += [[] for _ in requests]
        dropped: Sequence[int] | None = None
        with closing(self._policy.generate(requests, deadline, cancel)) as events, suppress(StopIteration):
            while True:
                event = events.send(dropped)
                self.events[first + event.request].append(event)
                dropped = yield event

    def close(self) -> None:
        pass


def _scores(solver: Solver, question: Question, traces: Sequence[Trace]) -> dict[tuple[str, ...], Scored]:
    """Scores of every distinct finished trace; each is charged to the first of its kind."""
    distinct = list(dict.fromkeys(trace.steps for trace in voters(traces)))
    if solver.verifier is None or not distinct:
        return {}
    return dict(zip(distinct, solver.verifier.score(question.question, distinct), strict=True))


def _sample(
    events: Sequence[StepEvent], trace: Trace, question: Question, scored: dict[tuple[str, ...], Scored]
) -> Sample:
    answer = trace.answer if trace.finished else None
    known = scored.get(trace.steps) if answer is not None else None
    if known is not None:
        scored[trace.steps] = replace(known, tokens=0)  # the next equal trace costs nothing
    return Sample(
        tuple(token for event in events for token in event.tokens),
        tuple(Part(e.text, len(e.tokens), round(e.logprob, 4), e.forced_tokens) for e in events),
        events[-1].stop if events else None,
        trace.steps,
        answer,
        is_correct(answer, question.answer or ""),
        trace.error,
        tuple(round(score, 5) for score in known.scores) if known else (),
        known.tokens if known else 0,
    )
