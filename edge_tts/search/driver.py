"""The driver of a search: carries out the waves that a strategy proposes, and nothing else decides anything.

question -> prompt tokens -> wave -> policy -> verifier -> the strategy's next wave -> ... -> choice
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    StepEvent,
    StepEvents,
    Trace,
    Verifier,
)
from edge_tts.errors import InputError
from edge_tts.events import (
    BestSoFar,
    CandidateScored,
    Event,
    Outcome,
    StepTaken,
)
from edge_tts.reasoning.formats import USUAL_TOKENS, Asked
from edge_tts.search.confidence import UNCALIBRATED, Calibration, Standing
from edge_tts.search.ledger import Ledger
from edge_tts.search.pace import Pace
from edge_tts.search.selection import Aggregate, Choice, aggregate, voters
from edge_tts.search.wave import Candidate, End, Proposer, Start, Wave

_FAMILIES = itertools.count()
SCORING_SHARE = 0.25
"""Largest part of the remaining time that the policy leaves to the scoring that follows it."""


def derived_seed(seed: int, part: int | str) -> int:
    """Seed of one ``part`` of what has ``seed``: a search's i-th request, or a problem by its id.

    31 bits: llama.cpp takes 2**32 - 1 as "draw a seed".
    """
    digest = hashlib.blake2b(f"{seed}:{part}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Way:
    """A format the question is asked in, and how its traces are drawn and counted."""

    asked: Asked
    sampling: Sampling
    weight: float = 1.0
    """How much the vote of a trace counts; above 0."""
    is_scored: bool = True
    """Whether the verifier reads its traces; where it does not, they weigh as much as scored ones do on average."""


@dataclass(frozen=True)
class Task:
    """One question, and how its candidates are drawn and judged."""

    question: str
    """For the verifier."""
    asked: Asked
    """For the policy."""
    sampling: Sampling
    aggregate: Aggregate = "last"
    seed: int = 0
    others: tuple[Way, ...] = ()
    """Other ways to ask: way 1 and following."""
    calibration: Calibration = UNCALIBRATED

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """All ways to ask, the usual one first."""
        return (Way(self.asked, self.sampling), *self.others)


def fitting_prompt(asked: Asked, policy: Policy, attempts: Sequence[Trace], room: int) -> tuple[int, ...]:
    """Tokens of the prompt with ``attempts`` shown in it; drops the oldest where ``room`` tokens do not fit behind."""
    tokens = asked.prompt(policy, attempts)
    while attempts and len(tokens) + room > policy.info.context_length:
        attempts = attempts[1:]
        tokens = asked.prompt(policy, attempts)
    return tokens


class Driver:
    """Runs one search. A driver is used once."""

    def __init__(
        self, task: Task, policy: Policy, verifier: Verifier | None, ledger: Ledger, pace: Pace | None = None
    ) -> None:
        """``pace`` is read and kept up to date; None: samples of a wave always begin together.

        Raises InputError for a question that fills the policy's context.
        """
        self.task = task
        self.ledger = ledger
        self._policy, self._verifier = policy, verifier
        self._candidates: list[Candidate] = []
        self._pace = pace
        self._requests = 0
        self._family = next(_FAMILIES)
        self._announced: tuple[str, float] | None = None
        self.dropped_scores = 0
        """Traces whose scores were not in [0, 1]."""
        self._roots: dict[int, tuple[int, ...]] = {}
        self.root = self._root(0)
        """Tokens of the question in the policy's prompt."""

    def run(self, strategy: Proposer, initial: Sequence[Trace] = ()) -> Generator[Event, None, Outcome]:
        """Search as ``strategy`` proposes: events as they come, then the outcome. Closing the generator cancels.

        ``initial`` traces of the same question were sampled and paid for before. Raises InputError where the strategy
        needs a verifier and there is none.
        """
        if strategy.needs_verifier and self._verifier is None:
            raise InputError(
                "this strategy needs a verifier and none is loaded; greedy, majority, adaptive and revise do without"
            )
        earlier = [self._add(name, trace, len(self.root)) for name, trace in enumerate(initial)]
        waves = strategy.waves([self._candidates[id] for id in earlier])
        end: End | None = None
        with closing(waves):
            try:
                proposed = next(waves)
                while True:
                    if isinstance(proposed, Wave):
                        grown = yield from self._carry_out(proposed, strategy)
                        if strategy.eager or proposed.score != "none":
                            yield from self._announce(strategy)
                        proposed = waves.send(grown)
                    else:
                        yield proposed
                        proposed = next(waves)
            except StopIteration as stop:
                end = stop.value
        if strategy.uses_scores or self.task.calibration.weighs_scores:
            yield from self._score([c for c in self._candidates if voters([c.trace])])
        yield from self._announce(strategy)
        choice = self._choice(strategy)
        reason = end.reason or self.ledger.exhausted() or ("budget: generations" if self.ledger.clipped else "complete")
        kept = tuple(self._candidates[candidate.id].trace for candidate in end.candidates)
        voted = kept if choice.among is None else tuple(self._candidates[id].trace for id in choice.among)
        sure = self._confidence(choice)
        return Outcome(choice.best, kept, reason, choice.support, self.dropped_scores, sure, voted)

    # --- prompts ---------------------------------------------------------------------------------

    def _root(self, way: int) -> tuple[int, ...]:
        if way not in self._roots:
            self._roots[way] = self._tokenised((), way)
        return self._roots[way]

    def _tokenised(self, attempts: Sequence[Trace], way: int) -> tuple[int, ...]:
        """Tokens of the prompt with ``attempts`` shown in it, as far as a whole new one fits behind them."""
        length, asked = self._policy.info.context_length, self.task.ways[way]
        tokens = fitting_prompt(asked.asked, self._policy, attempts, asked.sampling.max_tokens)
        if len(tokens) >= length:
            raise InputError(
                f"the question takes {len(tokens)} tokens and the policy's context is {length}; shorten the question "
                "or allow more memory for a longer context"
            )
        return tokens

    def _room(self, tokens: int, prompt_tokens: int, way: int) -> int:
        """New tokens for a trace of ``tokens`` tokens, of which ``prompt_tokens`` are its prompt."""
        left = self.task.ways[way].sampling.max_tokens - (tokens - prompt_tokens)
        return max(0, min(left, self._policy.info.context_length - tokens))

    # --- waves -----------------------------------------------------------------------------------

    def _carry_out(self, wave: Wave, strategy: Proposer) -> Generator[Event, None, list[Candidate]]:
        """Grow and score the candidates of ``wave``; gives them as they are then, resumed ones first."""
        ids = [candidate.id for candidate in wave.resume]
        if self.ledger.exhausted():
            return [self._candidates[id] for id in ids]
        granted = self.ledger.claim(len(wave.starts) * wave.generations)
        count = granted // wave.generations if wave.generations else len(wave.starts)
        ids += [self._begin(start) for start in wave.starts[:count]]
        before = {id: len(self._candidates[id].trace.tokens) for id in ids}
        unbegun = yield from self._grow(ids, wave, strategy)
        self.ledger.give_back(wave.generations * len(unbegun.intersection(ids[len(wave.resume) :])))
        grown = [self._candidates[id] for id in ids]
        if wave.score == "answers":
            yield from self._score([c for c in grown if voters([c.trace])])
        elif wave.score == "grown":
            longer = (c for c in grown if len(c.trace.tokens) > before[c.id])
            yield from self._score([c for c in longer if c.trace.finished or c.can_grow])
        elif wave.score == "all":
            yield from self._score(grown)
        if wave.give_up:
            yield from self._give_up(ids, wave.give_up)
        return [self._candidates[id] for id in ids]

    def _give_up(self, ids: Sequence[int], below: float) -> Iterator[Event]:
        """End those of ``ids`` that can grow on and whose last step scores less."""
        for candidate in (self._candidates[id] for id in ids):
            trace = candidate.trace
            if candidate.can_grow and trace.steps and _is_scored(trace) and trace.scores[-1] < below:
                why = f"given up: the verifier scores it {trace.scores[-1]:.3f}"
                trace = replace(trace, finished=True, error=why)
                self._candidates[candidate.id] = replace(candidate, trace=trace)
                yield StepTaken(candidate.name, "", True, trace.steps, (), trace.error, trace.doubts)

    def _begin(self, start: Start) -> int:
        if start.parent is not None:
            return self._add(start.name, start.parent.trace, start.parent.prompt_tokens, start.parent.way)
        tokens = self._tokenised(start.attempts, start.way) if start.attempts else self._root(start.way)
        return self._add(start.name, Trace(tokens, prompt_tokens=len(tokens)), len(tokens), start.way)

    def _add(self, name: int, trace: Trace, prompt_tokens: int, way: int = 0) -> int:
        room = self._room(len(trace.tokens), prompt_tokens, way)
        self._candidates.append(Candidate(len(self._candidates), name, trace, prompt_tokens, room, way))
        return len(self._candidates) - 1

    def _grow(self, ids: Sequence[int], wave: Wave, strategy: Proposer) -> Generator[Event, None, set[int]]:
        """Grow those of ``ids`` that can, together or, where time is short, a few after the other.

        Returns those that the policy did not come to before the search was over.
        """
        lanes = [id for id in ids if self._candidates[id].can_grow]
        unbegun: set[int] = set()
        while lanes and not self.ledger.exhausted():
            count = self._at_once(lanes, wave, ids)
            before, begun = self.ledger.policy_tokens, self.ledger.clock()
            unbegun |= yield from self._grow_together(lanes[:count], ids, wave, strategy)
            lanes = lanes[count:]
            if self._pace:
                self._pace.measured(self.ledger.policy_tokens - before, self.ledger.clock() - begun)
        return unbegun.union(lanes)

    def _at_once(self, lanes: Sequence[int], wave: Wave, ids: Sequence[int]) -> int:
        """How many of ``lanes`` to run together: where time is short, side by side all might grow and none end."""
        ends = self._policy_deadline(wave, ids)
        if self._pace is None or ends is None or wave.steps is not None:
            return len(lanes)
        finished = [c for c in self._candidates if c.trace.finished]
        lengths = [len(c.trace.tokens) - c.prompt_tokens for c in finished]
        usual = max(1.0, sum(lengths) / len(lengths)) if lengths else USUAL_TOKENS[self.task.asked.name]
        count = self._pace.at_once(len(lanes), usual, ends - self.ledger.clock())
        return count if count < self._policy.width else len(lanes)

    def _grow_together(
        self, lanes: Sequence[int], ids: Sequence[int], wave: Wave, strategy: Proposer
    ) -> Generator[Event, None, set[int]]:
        """Run the policy on ``lanes``; steps that the deadline cuts short are charged and dropped.

        Returns those of which nothing was evaluated.
        """
        unbegun: set[int] = set()
        requests = [self._request(self._candidates[id], wave) for id in lanes]
        running = set(lanes)
        events = self._policy.generate(requests, self._policy_deadline(wave, ids), self.ledger.cancel)
        try:
            unwanted: list[int] = []
            for event in _listening(events, unwanted):
                self.ledger.charge_step(event)
                id = lanes[event.request]
                if event.stop is not None:
                    running.discard(id)
                candidate = self._candidates[id]
                if candidate.trace.finished:
                    continue  # the rest of a step that was under way when the answer was there
                if event.stop == "cancelled":
                    self.ledger.cut_short()
                    before = len(candidate.trace.tokens) - candidate.prompt_tokens
                    if not event.prefill_tokens and not event.tokens and not before:
                        unbegun.add(id)
                else:
                    yield self._take(candidate, event)
                    trace = self._candidates[id].trace
                    if trace.finished and strategy.eager:
                        yield from self._announce(strategy)
                    if trace.finished and event.stop is None:
                        unwanted.append(event.request)
                if running and all(self._candidates[id].trace.finished for id in running):
                    return unbegun  # nothing after an answer is wanted
                bounded = self.ledger.budget.flops is not None
                if self.ledger.overspent(self._scoring_tokens(wave, ids) if bounded else 0):
                    return unbegun
            return unbegun
        finally:
            events.close()
            self.ledger.charge_abandoned(min(len(running), self._policy.width))

    def _take(self, candidate: Candidate, event: StepEvent) -> StepTaken:
        """Give ``candidate`` the step of ``event``."""
        way, before = self.task.ways[candidate.way], candidate.trace
        trace = way.asked.extended(before, event)
        if trace.finished and way.weight != 1:
            trace = replace(trace, weight=trace.weight * way.weight)
        room = self._room(len(trace.tokens), candidate.prompt_tokens, candidate.way)
        self._candidates[candidate.id] = replace(candidate, trace=trace, room=room)
        self.ledger.charge_interpreter(trace.run_seconds - before.run_seconds)
        values = trace.values[-1] if len(trace.values) > len(before.values) else ()
        answer = trace.answer if trace.finished else None
        return StepTaken(
            candidate.name, event.text, trace.finished, trace.steps, values, trace.error, trace.doubts, answer
        )

    def _request(self, candidate: Candidate, wave: Wave) -> Request:
        """A request with a seed that depends on the search's seed and a running index only."""
        seed = derived_seed(self.task.seed, self._requests)
        self._requests += 1
        room = min(candidate.room, self.ledger.tokens_left() or math.inf)
        way = self.task.ways[candidate.way]
        sampling = replace(way.sampling, max_tokens=int(room))
        if wave.greedy:
            sampling = replace(sampling, temperature=0.0)
        tokens, asked = candidate.trace.tokens, way.asked
        return Request(tokens, seed, sampling, wave.steps, asked.delimiter, asked.writes, self._family)

    # --- scoring ---------------------------------------------------------------------------------

    def _score(self, candidates: Sequence[Candidate]) -> Generator[Event, None, None]:
        """Score those of ``candidates`` that are not scored yet; equal steps are scored once.

        Scores nothing where there is no verifier, where scoring would run past the deadline, or once cancelled. A
        trace with a score that is not in [0, 1] counts as scored 0.
        """
        known = {c.trace.steps: c.trace.scores for c in self._candidates if _is_scored(c.trace)}
        unscored = [c for c in candidates if self.task.ways[c.way].is_scored and not _is_scored(c.trace)]
        lengths = {c.trace.steps: len(c.trace.tokens) for c in unscored if c.trace.steps not in known}
        if lengths:
            expected = self.ledger.verifier_tokens(sum(lengths.values()))
            verifier, left = self._verifier, self.ledger.seconds_left()
            if verifier is None or self.ledger.cancel.requested or verifier.seconds(expected) > left:
                return
            began = self.ledger.clock()
            results = verifier.score(self.task.question, list(lengths), self.ledger.cancel)
            whole = len(results) == len(lengths)
            tokens, seconds = sum(scored.tokens for scored in results), self.ledger.clock() - began
            self.ledger.charge_verifier(tokens, seconds, sum(lengths.values()) if whole else 0)
            if not whole:
                return
            for steps, scored in zip(lengths, results, strict=True):
                if all(0 <= score <= 1 for score in scored.scores):  # False for NaN
                    known[steps] = scored.scores
                else:
                    known[steps] = (0.0,) * len(steps)
                    self.dropped_scores += 1
        for candidate in unscored:
            if scores := known.get(candidate.trace.steps):
                current = self._candidates[candidate.id]
                self._candidates[candidate.id] = replace(current, trace=replace(current.trace, scores=scores))
                yield CandidateScored(candidate.name, aggregate(scores, self.task.aggregate))

    def _to_score(self, wave: Wave, ids: Sequence[int]) -> int:
        return max(wave.reserve, 0 if wave.score == "none" else len(ids))

    def _scoring_tokens(self, wave: Wave, ids: Sequence[int]) -> int:
        if self._verifier is None:
            return 0
        longest = max((len(self._candidates[id].trace.tokens) for id in ids), default=0)
        return self.ledger.verifier_tokens(self._to_score(wave, ids) * longest)

    def _policy_deadline(self, wave: Wave, ids: Sequence[int]) -> float | None:
        ends, to_score = self.ledger.ends, self._to_score(wave, ids)
        if ends == math.inf:
            return None
        if self._verifier is None or not to_score:
            return ends
        growth = self.ledger.verifier_tokens(to_score * self.task.sampling.max_tokens)
        expected = self._scoring_tokens(wave, ids) + growth
        return ends - min(self._verifier.seconds(expected), SCORING_SHARE * self.ledger.seconds_left())

    # --- results ---------------------------------------------------------------------------------

    def _choice(self, strategy: Proposer) -> Choice:
        return strategy.choose(self._candidates, self.ledger.seconds_left)

    def _announce(self, strategy: Proposer) -> Iterator[Event]:
        """A BestSoFar event where the strategy's choice, or the confidence in it, is not what was announced last."""
        choice = self._choice(strategy)
        if choice.best is not None and choice.best.answer is not None:
            sure = self._confidence(choice)
            told = (choice.best.answer, round(sure, 2))
            if told != self._announced:
                self._announced = told
                yield BestSoFar(choice.best.answer, choice.score, sure)

    def _confidence(self, choice: Choice) -> float:
        answer = choice.best.answer if choice.best else None
        among = self._candidates if choice.among is None else [self._candidates[id] for id in choice.among]
        standing = Standing.of(among, answer, self.task.aggregate, self.ledger.seconds_left)
        return round(self.task.calibration.confidence(standing), 4)


def _listening(events: StepEvents, unwanted: list[int]) -> Iterator[StepEvent]:
    """The events; what is put into ``unwanted`` between two of them is dropped from the requests."""
    with suppress(StopIteration):
        event = next(events)
        while True:
            yield event
            dropped, unwanted[:] = tuple(unwanted), []
            event = events.send(dropped)


def _is_scored(trace: Trace) -> bool:
    return len(trace.scores) == len(trace.steps)
