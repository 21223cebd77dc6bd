"""Runs strategies over pools of samples as the solver that drew them would.

The search code itself runs: a policy and a verifier that give back what a pool holds stand in for the real ones, and
charge what those would have been charged for that part of the pool alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

from edge_tts.bench.pool import SAMPLING_KINDS, Pool, Sample, problem_seed
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
    Trace,
    Usage,
    Verifier,
)
from edge_tts.errors import InputError
from edge_tts.events import Event, Outcome
from edge_tts.reasoning.formats import Asked, FormatName
from edge_tts.runtimes.common_prefix import common_prefix
from edge_tts.search.call import AUTO, Call, Format
from edge_tts.search.confidence import Calibration
from edge_tts.search.difficulty import Auto
from edge_tts.search.driver import Driver, Task, derived_seed
from edge_tts.search.fit import Fit
from edge_tts.search.ledger import Ledger
from edge_tts.search.strategy import Strategy
from edge_tts.search.wave import Proposer
from edge_tts.solver import Solver


@dataclass(frozen=True)
class Replay:
    """Runs strategies over pools as the solver that drew them would; needs no model."""

    policy: ModelInfo
    width: int
    sampling: Sampling
    """As a pack has it."""
    ask: Callable[[str, Format], Asked]
    prm: ModelInfo | None = None
    """Of the verifier whose scores the pools hold."""
    programs: Verifier | None = None
    """What scores programs needs no model, and is asked itself."""
    fits: Mapping[FormatName, Fit] = field(default_factory=dict)
    """Of the controller."""

    @classmethod
    def of(cls, solver: Solver) -> Self:
        """As ``solver`` would."""
        prm = solver.verifier.info if solver.verifier else None
        programs = None if prm else solver.verifier_of("program")
        ask = partial(_asked, solver)
        return cls(solver.policy.info, solver.policy.width, solver.pack.sampling, ask, prm, programs, solver.fits)

    def run(self, question: str, pool: Pool, strategy: Strategy, format: Format = "auto") -> tuple[Outcome, Usage]:
        """The outcome of ``strategy`` and what it cost, ``seconds`` left out.

        Raises InputError for a strategy that is no choice among samples, or wants more than there are.
        """
        size = len(pool.samples)
        if strategy.kind not in SAMPLING_KINDS or strategy.n > size or (strategy.kind == "greedy" and not pool.greedy):
            raise InputError(f"a pool of {size} samples cannot serve {strategy}; draw a larger one or run it by itself")
        asked = self.ask(question, format)
        scored = self._scores(asked.name) and (self.prm is None or strategy.uses_verifier)
        calibration = self._fit(asked).calibration.where(scored)
        return self._searched(question, pool, strategy.proposer(), strategy.generations, asked, calibration)

    def auto(self, question: str, pool: Pool, most: int, format: Format = "auto") -> tuple[Outcome, Usage]:
        """The same for ``auto`` with at most ``most`` samples, where the controller decides and asks in one format.

        Raises InputError where that is more than there are.
        """
        if most > len(pool.samples):
            raise InputError(f"a pool of {len(pool.samples)} samples cannot serve auto at {most}; draw a larger one")
        asked = self.ask(question, format)
        controller = self._fit(asked).controller(most, self._scores(asked.name))
        return self._searched(question, pool, Auto(None, controller), most, asked, controller.calibration)

    def _fit(self, asked: Asked) -> Fit:
        return self.fits.get(asked.name, Fit())

    def _searched(
        self,
        question: str,
        pool: Pool,
        proposer: Proposer,
        generations: int,
        asked: Asked,
        calibration: Calibration,
    ) -> tuple[Outcome, Usage]:
        ledger = Ledger(self.policy, self.prm, Budget(generations=generations))
        sampled = Call(asked.name, AUTO, Budget()).sampled(self.sampling, asked.name)
        seed = problem_seed(pool.seed, pool.id)
        driver = Driver(
            Task(question, _Drawn(pool, asked), sampled, seed=seed, calibration=calibration),
            _PoolPolicy(pool, self.policy, self.width),
            self._verifier(pool, asked.name),
            ledger,
        )
        outcome = _outcome(driver.run(proposer))
        usage = replace(ledger.usage, seconds=0.0, verifier_seconds=0.0, interpreter_seconds=0.0)
        return outcome, usage

    def _verifier(self, pool: Pool, format: FormatName) -> Verifier | None:
        if self.prm:
            return _PoolVerifier(pool, self.prm)
        return self.programs if self._scores(format) else None

    def _scores(self, format: FormatName) -> bool:
        """Whether a verifier reads traces in ``format``."""
        return self.prm is not None or (self.programs is not None and format == "program")


def _asked(solver: Solver, question: str, format: Format) -> Asked:
    return solver.asked(question, format=format)


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
