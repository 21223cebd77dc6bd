"""A pool of samples that serves every budget and every strategy that only chooses among samples.

A pool is drawn and scored once. A strategy is then run over it by the search code itself: a policy and
a verifier that give back what the pool holds stand in for the real ones and charge what those would
have been charged for that part of the pool alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
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
    ChatModelInfo,
    ModelInfo,
    Policy,
    Request,
    Sampling,
    Scored,
    StepEvent,
    StepEvents,
    StepWriter,
    StopReason,
    Trace,
    Usage,
)
from edge_tts.errors import InputError
from edge_tts.events import Event, Outcome
from edge_tts.files.json_lines import read_lines
from edge_tts.questions.reading import Question
from edge_tts.reasoning.formats import Asked, FormatName
from edge_tts.runtimes.common_prefix import common_prefix
from edge_tts.search.call import AUTO, Call, Format
from edge_tts.search.driver import Driver, Task, derived_seed
from edge_tts.search.ledger import Ledger
from edge_tts.search.selection import Choice, voters
from edge_tts.search.strategy import Kind, Strategy
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


class Replay:
    """Runs strategies over pools as the solver that drew them would; needs no model."""

    def __init__(self, solver: Solver) -> None:
        self._policy = solver.policy.info
        self._width = solver.policy.width
        self._verifier = solver.verifier.info if solver.verifier else None
        self._solver = solver

    def run(self, question: str, pool: Pool, strategy: Strategy, format: Format = "auto") -> tuple[Outcome, Usage]:
        """The outcome of ``strategy`` and what it cost, ``seconds`` left out.

        Raises InputError for a strategy that is no choice among samples, or wants more than there are.
        """
        size = len(pool.samples)
        if strategy.kind not in SAMPLING_KINDS or strategy.n > size or (strategy.kind == "greedy" and not pool.greedy):
            raise InputError(f"a pool of {size} samples cannot serve {strategy}; draw a larger one or run it by itself")
        ledger = Ledger(self._policy, self._verifier, Budget(generations=strategy.generations))
        asked = self._solver.asked(question, format=format)
        seed = problem_seed(pool.seed, pool.id)
        driver = Driver(
            Task(question, _Drawn(pool, asked), sampling(self._solver, asked), seed=seed),
            _PoolPolicy(pool, self._policy, self._width),
            # What scores programs needs no model, and is asked itself.
            _PoolVerifier(pool, self._verifier) if self._verifier else self._solver.verifier_of(asked.name),
            ledger,
        )
        outcome = _outcome(driver.run(strategy.proposer()))
        return outcome, replace(ledger.usage, seconds=0.0, verifier_seconds=0.0)


def _outcome(search: Generator[Event, None, Outcome]) -> Outcome:
    while True:
        try:
            next(search)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


@dataclass(frozen=True)
class _Drawn:
    """A question as the solver asks it, whose prompt was tokenised when its pool was drawn."""

    pool: Pool
    asked: Asked
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> FormatName:
        return self.asked.name

    @property
    def delimiter(self) -> str:
        return self.asked.delimiter

    @property
    def writes(self) -> StepWriter | None:
        return self.asked.writes

    def prompt(self, policy: Policy, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        return self.pool.prompt

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        return self.asked.extended(trace, event)


class _PoolPolicy:
    """Gives back the samples of a pool; evaluates the prompt once, and what its samples begin with alike once."""

    def __init__(self, pool: Pool, info: ModelInfo, width: int) -> None:
        self.info = info
        self.chat_model = ChatModelInfo()
        self.width = width
        self._pool = pool
        start = problem_seed(pool.seed, pool.id)
        self._by_seed = {derived_seed(start, i): sample for i, sample in enumerate(pool.samples)}
        self._prefilled = False
        self._drawn: list[Sample] = []
        """In all calls so far: a search keeps what its samples evaluated."""

    def special(self, token: int) -> None:
        return None

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        return self._pool.prompt

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        """Events in the order in which a batch of equally fast sequences has them."""
        first = len(self._drawn)
        self._drawn += [self._sample(request) for request in requests]
        due = [
            (end, index, event)
            for index, sample in enumerate(self._drawn[first:])
            for end, event in _events(index, sample, self._shared(self._drawn, first + index))
        ]
        for _, _, event in sorted(due, key=lambda item: item[:2]):
            prefill = 0 if self._prefilled else self._pool.prompt_cost
            self._prefilled = True
            yield replace(event, prefill_tokens=prefill)

    def close(self) -> None:
        pass

    def _sample(self, request: Request) -> Sample:
        if request.sampling.temperature == 0:
            assert self._pool.greedy is not None
            return self._pool.greedy
        return self._by_seed[request.seed]

    def _shared(self, drawn: Sequence[Sample], index: int) -> int:
        """Tokens that sample ``index`` has in common with an earlier one; its last token is never evaluated."""
        mine = drawn[index].tokens
        common = (common_prefix(mine, other.tokens) for other in drawn[:index])
        return min(max(common, default=0), max(0, len(mine) - 1))


def _events(index: int, sample: Sample, shared: int) -> list[tuple[int, StepEvent]]:
    """The step events of a sample, each with the number of tokens at which it ends."""
    events, at = [], 0
    for number, part in enumerate(sample.parts):
        end = at + part.tokens
        stop = sample.stop if number == len(sample.parts) - 1 else None
        common = max(0, min(shared, end) - at)
        tokens = sample.tokens[at:end]
        events.append((end, StepEvent(index, part.text, tokens, part.logprob, 0, part.forced, stop, common)))
        at = end
    return events


class _PoolVerifier:
    """Gives back the scores of a pool, and what each cost after those before it."""

    def __init__(self, pool: Pool, info: ModelInfo) -> None:
        self.info = info
        self._known: dict[tuple[str, ...], Scored] = {}
        for sample in pool.samples:
            if sample.scores:
                self._known.setdefault(sample.steps, Scored(sample.scores, sample.verifier_tokens))

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        return [self._known[tuple(steps)] for steps in traces]

    def seconds(self, tokens: int) -> float:
        return 0.0

    def close(self) -> None:
        pass
