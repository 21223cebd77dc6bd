"""What every search shares: running a policy and a verifier, counting their cost, knowing when to stop."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    BestSoFar,
    Budget,
    CandidateScored,
    Event,
    Outcome,
    Policy,
    Request,
    Sampling,
    StepEvent,
    StepTaken,
    Trace,
    Usage,
    Verifier,
)
from edge_tts.errors import InputError
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.search.selection import Aggregate, Choice, aggregate

SCORING_SHARE = 0.25
"""Most of the remaining time that a policy leaves to the scoring that follows it."""


def derived_seed(seed: int, part: int | str) -> int:
    """Seed of one ``part`` of what has ``seed``: a search's i-th request, or a problem by its id.

    31 bits: llama.cpp takes 2**32 - 1 as "draw a seed".
    """
    digest = hashlib.blake2b(f"{seed}:{part}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass
class Meter:
    """Running total of what one question has cost."""

    policy_parameters: int
    verifier_parameters: int
    usage: Usage = field(default_factory=Usage)
    generations: int = 0
    """Full traces, or their equivalent in candidates, that were started."""

    def charge_policy(self, prefill: int, generated: int, forced: int = 0, shared: int = 0) -> None:
        tokens = prefill + generated - shared
        self.usage += Usage(
            policy_tokens=tokens,
            generated_tokens=generated,
            forced_tokens=forced,
            policy_flops=2.0 * self.policy_parameters * tokens,
        )

    def charge_verifier(self, tokens: int, seconds: float) -> None:
        self.usage += Usage(
            verifier_tokens=tokens,
            verifier_flops=2.0 * self.verifier_parameters * tokens,
            verifier_seconds=seconds,
        )


@dataclass
class SearchContext:
    """Everything a strategy needs besides the question; made anew for each question.

    The time and the budget run from its creation, so a probe and the search that follows share one.
    """

    policy: Policy
    verifier: Verifier | None = None
    """None for strategies that need no scores."""
    prompts: PromptFormat = field(default_factory=PromptFormat)
    sampling: Sampling = field(default_factory=Sampling)
    aggregate: Aggregate = "last"
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    deadline: float | None = None
    """Instant of ``clock`` at which the answer is due."""
    watts: float | None = None
    """Power drawn while searching; needed by a budget in joules."""
    cancel: Cancellation = field(default_factory=Cancellation)
    """Ends the search at once with what it has."""
    clock: Callable[[], float] = time.monotonic
    """The clock the policy's deadlines are instants of."""
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        if self.budget.joules is not None and not self.watts:
            raise InputError(
                f"a budget of {self.budget.joules:g} joules needs the device's power, and watts is {self.watts}; "
                "use a profile that states it, or a budget in seconds"
            )
        verifier_parameters = self.verifier.info.parameters if self.verifier else 0
        self.meter = Meter(self.policy.info.parameters, verifier_parameters)
        self._started = self.clock()
        ends = [(math.inf, "")]
        if self.deadline is not None:
            ends.append((self.deadline, "deadline"))
        if self.budget.seconds is not None:
            ends.append((self._started + self.budget.seconds, "deadline"))
        if self.budget.joules is not None and self.watts:
            ends.append((self._started + self.budget.joules / self.watts, "budget: joules"))
        self._ends, self._ends_because = min(ends)
        self._stopped: str | None = None
        self._clipped = False
        self._requests = 0
        self._announced: str | None = None
        self._steps_seen = 0
        self._scored_trace_tokens = 0

    # --- cost and time ---------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """What was spent since the context was made; the caller adds peak memory."""
        return replace(self.meter.usage, seconds=self.clock() - self._started)

    def seconds_left(self) -> float:
        """Time until the deadline, at least 0; infinite where there is none, 0 once cancelled."""
        return 0.0 if self.cancel.requested else max(0.0, self._ends - self.clock())

    def exhausted(self) -> str | None:
        """Why the search has to stop now, or None: "deadline", "budget: tokens", "budget: flops",
        "budget: joules" or "cancelled". Once given, a reason stays.
        """
        if self.cancel.requested:
            self._stopped = self._stopped or "cancelled"
        if self.clock() >= self._ends:
            self._stopped = self._stopped or self._ends_because
        self._overspent()
        return self._stopped

    def _overspent(self, scoring_tokens: int = 0) -> bool:
        """Whether tokens or FLOPs are used up, with ``scoring_tokens`` of the verifier still to be paid."""
        usage, budget = self.meter.usage, self.budget
        flops = usage.policy_flops + usage.verifier_flops + 2.0 * self.meter.verifier_parameters * scoring_tokens
        if budget.tokens is not None and usage.policy_tokens >= budget.tokens:
            self._stopped = self._stopped or "budget: tokens"
            return True
        if budget.flops is not None and flops >= budget.flops:
            self._stopped = self._stopped or "budget: flops"
            return True
        return False

    def require_verifier(self, strategy: str) -> None:
        """Raises InputError where there is no verifier."""
        if self.verifier is None:
            raise InputError(
                f"{strategy} needs a verifier and there is none; greedy, majority, adaptive and revise do without"
            )

    def claim(self, generations: int) -> int:
        """Take up to ``generations`` from the budget; returns how many were left to take."""
        wanted, cap = max(0, generations), self.budget.generations
        granted = wanted if cap is None else max(0, min(wanted, cap - self.meter.generations))
        self.meter.generations += granted
        self._clipped = self._clipped or granted < wanted
        return granted

    # --- running the policy ----------------------------------------------------------------------

    def root(self, question: str, attempts: Sequence[str] = ()) -> Trace:
        """The empty trace of ``question`` with earlier ``attempts`` in the open turn.

        Drops the oldest attempts where a whole new one would not fit behind them. Raises
        InputError for a question that fills the context by itself.
        """
        length = self.policy.info.context_length
        tokens = self.policy.tokenize(self.prompts.render(question, attempts), special=True)
        while attempts and len(tokens) + self.sampling.max_tokens > length:
            attempts = attempts[1:]
            tokens = self.policy.tokenize(self.prompts.render(question, attempts), special=True)
        if len(tokens) >= length:
            raise InputError(
                f"the question takes {len(tokens)} tokens and the policy's context is {length}; shorten the question "
                "or allow more memory for a longer context"
            )
        return Trace(tokens)

    def room(self, trace: Trace, root: Trace) -> int:
        """New tokens ``trace`` may still get; ``root`` is the empty trace it grew from."""
        generated = len(trace.tokens) - len(root.tokens)
        return min(self.sampling.max_tokens - generated, self.policy.info.context_length - len(trace.tokens))

    def advance(
        self,
        pool: list[Trace],
        roots: Sequence[Trace],
        which: Sequence[int] | None = None,
        *,
        max_steps: int | None = None,
        greedy: bool = False,
        to_score: int = 0,
        names: Sequence[int] | None = None,
    ) -> Generator[Event, None, None]:
        """Grow the unfinished traces of ``pool`` in place, each by ``max_steps`` or to its end.

        ``roots[i]`` is the empty trace that ``pool[i]`` grew from, ``which`` the indices to grow
        (all), ``to_score`` how many traces will be scored afterwards: time is left for that, and
        ``names`` the candidates that events call the traces (their indices).
        Stops at the deadline or when the budget is spent. Steps cut short are charged and dropped.
        """
        wanted = range(len(pool)) if which is None else which
        lanes = [i for i in wanted if not pool[i].finished and self.room(pool[i], roots[i]) > 0]
        if not lanes or self.exhausted():
            return
        requests = [self._request(pool[i], self.room(pool[i], roots[i]), max_steps, greedy) for i in lanes]
        running = set(lanes)
        with self._generating(requests, self._policy_deadline(to_score, pool), running) as events:
            for event in events:
                self._charge(event)
                lane = lanes[event.request]
                if event.stop is not None:
                    running.discard(lane)
                if event.stop == "cancelled":
                    self._stopped = self.exhausted() or self._ends_because or "cancelled"
                elif not pool[lane].finished:
                    pool[lane] = pool[lane].extended(event, self.prompts.answer_marker)
                    grown = pool[lane]
                    yield StepTaken(names[lane] if names else lane, event.text, grown.finished, grown.steps)
                if running and all(pool[i].finished for i in running):
                    return  # nothing after an answer is wanted
                if self._overspent(self._scoring_tokens(to_score, pool)):
                    return

    def _request(self, trace: Trace, room: int, max_steps: int | None, greedy: bool) -> Request:
        """A request with a seed that depends on the context's seed and a running index only."""
        seed = derived_seed(self.seed, self._requests)
        self._requests += 1
        if self.budget.tokens is not None:
            room = max(1, min(room, self.budget.tokens - self.meter.usage.policy_tokens))
        sampling = replace(self.sampling, max_tokens=room)
        if greedy:
            sampling = replace(sampling, temperature=0.0)
        return Request(trace.tokens, seed, sampling, max_steps)

    @contextmanager
    def _generating(
        self, requests: Sequence[Request], deadline: float | None, running: set[int]
    ) -> Iterator[Iterator[StepEvent]]:
        """The policy's events, closed on leaving; what the requests still running lose is charged.

        A closed policy cannot report its partial steps any more, so each request in a slot is
        charged half a mean step.
        """
        events = self.policy.generate(requests, deadline, self.cancel)
        try:
            yield events
        finally:
            events.close()
            if self._steps_seen:
                mean_step = self.meter.usage.generated_tokens / self._steps_seen
                self.meter.charge_policy(0, round(min(len(running), self.policy.width) * mean_step / 2))

    def _charge(self, event: StepEvent) -> None:
        self._steps_seen += 1
        self.meter.charge_policy(event.prefill_tokens, len(event.tokens), event.forced_tokens, event.shared_tokens)

    # --- scoring ---------------------------------------------------------------------------------

    def score(
        self,
        question: str,
        pool: list[Trace],
        which: Sequence[int] | None = None,
        names: Sequence[int] | None = None,
    ) -> Generator[Event, None, bool]:
        """Score the traces of ``pool`` (those in ``which``) that are not scored yet, in place.

        ``names`` are the candidates that events call the traces (their indices).
        Traces with the same steps are scored once. Gives False, and scores nothing, where there is
        no verifier, where it would run past the deadline, or once cancelled.
        """
        lanes = range(len(pool)) if which is None else which
        unscored = [i for i in lanes if len(pool[i].scores) < len(pool[i].steps)]
        scores = {trace.steps: trace.scores for trace in pool if len(trace.scores) == len(trace.steps)}
        lengths = {pool[i].steps: len(pool[i].tokens) for i in unscored if pool[i].steps not in scores}
        if lengths:
            expected = self._verifier_tokens(sum(lengths.values()))
            if self.verifier is None or self.cancel.requested or self.verifier.seconds(expected) > self.seconds_left():
                return False
            began = self.clock()
            results = self.verifier.score(question, list(lengths), self.cancel)
            self.meter.charge_verifier(sum(scored.tokens for scored in results), self.clock() - began)
            if len(results) < len(lengths):
                return False
            self._scored_trace_tokens += sum(lengths.values())
            scores |= {steps: scored.scores for steps, scored in zip(lengths, results, strict=True)}
        for i in unscored:
            pool[i] = replace(pool[i], scores=scores[pool[i].steps])
            yield CandidateScored(names[i] if names else i, aggregate(pool[i].scores, self.aggregate))
        return True

    def _verifier_tokens(self, trace_tokens: int) -> int:
        """Predicted verifier tokens of traces that have ``trace_tokens`` policy tokens, prompts included."""
        if not self._scored_trace_tokens:
            return trace_tokens
        return math.ceil(trace_tokens * self.meter.usage.verifier_tokens / self._scored_trace_tokens)

    def _scoring_tokens(self, traces: int, pool: Sequence[Trace]) -> int:
        longest = max((len(trace.tokens) for trace in pool), default=0)
        return self._verifier_tokens(traces * longest) if self.verifier else 0

    def _policy_deadline(self, to_score: int, pool: Sequence[Trace]) -> float | None:
        if self._ends == math.inf:
            return None
        if self.verifier is None or not to_score:
            return self._ends
        growth = self._verifier_tokens(to_score * self.sampling.max_tokens)
        expected = self._scoring_tokens(to_score, pool) + growth
        return self._ends - min(self.verifier.seconds(expected), SCORING_SHARE * self.seconds_left())

    # --- results ---------------------------------------------------------------------------------

    def announce(self, choice: Choice) -> Iterator[Event]:
        """A BestSoFar event where ``choice`` names another answer than the last one announced."""
        if choice.best is not None and choice.best.answer is not None and choice.best.answer != self._announced:
            self._announced = choice.best.answer
            yield BestSoFar(choice.best.answer, choice.score)

    def outcome(self, choice: Choice, traces: Sequence[Trace], decided: bool = False) -> Outcome:
        """The result of a search that ends here, with the reason why it does."""
        reason = "decided" if decided else self.exhausted()
        reason = reason or ("budget: generations" if self._clipped else "complete")
        return Outcome(choice.best, tuple(traces), reason, choice.support)
