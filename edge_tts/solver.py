"""The main path: question -> difficulty -> strategy -> search -> answer.

with Solver() as solver:
    print(solver.solve("Tom has 3 boxes of 8 pencils. How many pencils are there?").answer)
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, Self

from edge_tts.cancellation import Cancellation
from edge_tts.concurrency import in_thread, together
from edge_tts.core import (
    Budget,
    Difficulty,
    DifficultyEstimated,
    Done,
    Event,
    Outcome,
    Policy,
    Result,
    Sampling,
    StrategyChosen,
    Verifier,
)
from edge_tts.errors import BackendError
from edge_tts.files.atomic import Progress, silent
from edge_tts.packs.pack import Pack, find_pack, prepare_pack
from edge_tts.planning.planner import Plan, make_plan
from edge_tts.profiles.loader import Profile, detect, load
from edge_tts.questions.reading import Question, checked_question
from edge_tts.questions.results import Settings
from edge_tts.runtimes.loaded import LoadedModels, Models, ModelsConfig, VerifierFiles
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.context import SearchContext
from edge_tts.search.difficulty import probe
from edge_tts.search.selection import Aggregate
from edge_tts.search.strategy import Strategy, run

AUTO = "auto"
DEFAULT_GENERATIONS = 16


class Solver:
    """A loaded pack that answers questions inside a memory cap and a deadline.

    Any number of threads and asyncio tasks may call one solver: their work shares the policy's batch, in
    equal parts where there is more than fits. Close it, or use it as a context manager. It belongs to the
    process that made it.
    """

    def __init__(
        self,
        pack: str | Pack | None = None,
        profile: str | Path | Profile | None = None,
        memory_mb: float | None = None,
        deadline_s: float | None = None,
        generations: int = DEFAULT_GENERATIONS,
        prompt_tokens: int | None = None,
        calculator: bool = True,
        verifier: bool = True,
        isolate: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Plan, then load.

        ``pack`` is a name or folder (the built-in one by default, assembled on first use with
        ``progress``), ``profile`` a name, a file or None to detect this device. ``memory_mb`` and
        ``deadline_s`` override the profile's; ``generations`` sizes the default budget and
        ``prompt_tokens`` the context, for long questions. Without ``verifier`` none is loaded and
        its memory is free for more sequences: for strategies that do not score. ``isolate`` loads the
        models in a process of their own, which ``memory_mb`` then is about: a crash in there is a
        BackendError of the calls under way, and the next call starts it again. Raises PackError,
        ResourceError where the cap is too small, InputError, BackendError.
        """
        self.pack = _pack(pack)
        self.profile = _profile(profile)
        self.plan = plan(self.pack, self.profile, memory_mb, deadline_s, generations, prompt_tokens, verifier=verifier)
        self.deadline_s: float | None = self.plan.deadline_s
        """Seconds for a question whose budget names none; None for as long as it takes."""
        self.pack = prepare_pack(self.pack, progress)
        self.calculator = calculator and self.pack.calculator is not None
        """Whether the runtime writes the results of equations."""
        table = self.pack.table if self.plan.verifier else None
        self.table = StrategyTable.parse(table) if table is not None else None
        self._models = self._open_models(isolate)
        self.policy: Policy = self._models.policy
        self.verifier: Verifier | None = self._models.verifier
        self._pid = os.getpid()
        self._calls: set[Cancellation] = set()
        """Of the calls under way."""

    def _open_models(self, isolate: bool) -> Models:
        pack, verifier = self.pack, None
        if self.plan.verifier and pack.verifier_path and pack.tokenizer_path:
            verifier = VerifierFiles(pack.verifier_path, pack.tokenizer_path, self.plan.verifier_config)
        calculator = pack.calculator if self.calculator else None
        config = ModelsConfig(pack.policy_path, self.plan.engine, pack.prompts, calculator, verifier)
        if not isolate:
            return LoadedModels(config)
        from edge_tts.runtimes.isolated import IsolatedModels

        return IsolatedModels(config)

    def solve(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        aggregate: Aggregate = "last",
    ) -> Result:
        """Answer ``question``. See :meth:`stream` for the arguments."""
        return _result(list(self.stream(question, strategy, budget, seed, sampling, aggregate)))

    async def asolve(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        aggregate: Aggregate = "last",
    ) -> Result:
        """The same for asyncio. Cancelling the task stops the work at once."""
        async with aclosing(self.astream(question, strategy, budget, seed, sampling, aggregate)) as events:
            return _result([event async for event in events])

    def stream(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        aggregate: Aggregate = "last",
    ) -> Generator[Event | Done, None, None]:
        """Yield events as the search goes on; the last is :class:`Done` with the result.

        ``strategy`` is "auto" or what :meth:`Strategy.parse` reads. The deadline is the budget's
        ``seconds``, else ``deadline_s``, counted from here. ``sampling`` takes the place of the
        pack's. Closing the generator stops the work at once. Raises InputError for a question or
        strategy that cannot be used.
        """
        return self._search(question, strategy, budget, seed, sampling, aggregate, Cancellation())

    def astream(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        aggregate: Aggregate = "last",
    ) -> AsyncGenerator[Event | Done, None]:
        """The same for asyncio; the search runs in a thread of its own."""
        cancel = Cancellation()
        return in_thread(self._search(question, strategy, budget, seed, sampling, aggregate, cancel), cancel)

    def cancel(self) -> None:
        """End every call under way with the best answer it has; from any thread."""
        for call in tuple(self._calls):
            call.request()

    def _search(
        self,
        question: str,
        strategy: str,
        budget: Budget | None,
        seed: int,
        sampling: Sampling | None,
        aggregate: Aggregate,
        cancel: Cancellation,
    ) -> Generator[Event | Done, None, None]:
        began = time.monotonic()
        self._require_own_process()
        with self._under_way(cancel):
            question = checked_question(question)
            budget = budget or Budget()
            asked = None if strategy == AUTO else Strategy.parse(strategy, budget.generations or self.plan.generations)
            generations = budget.generations or (asked.generations if asked else self.plan.generations)
            budget = replace(budget, generations=generations, seconds=budget.seconds or self.deadline_s)
            context = SearchContext(
                self.policy,
                self.verifier,
                self.pack.prompts,
                sampling or self.pack.sampling,
                aggregate,
                seed,
                budget,
                None if budget.seconds is None else began + budget.seconds,
                self.profile.watts,
                cancel,
            )
            prompt_tokens = len(context.root(question).tokens)
            if asked is None:
                chosen, difficulty, reason, outcome = yield from self._auto(question, context, generations)
            else:
                chosen, difficulty, reason = asked, None, "asked for"
                yield StrategyChosen(str(chosen), reason)
                outcome = yield from run(question, chosen, context)
        usage = replace(context.usage, seconds=time.monotonic() - began, peak_memory_mb=self._models.peak_memory_mb())
        best = outcome.best
        yield Done(
            Result(
                answer=best.answer if best else None,
                steps=best.steps if best else (),
                finished=best is not None,
                strategy=str(chosen),
                reason=reason,
                difficulty=difficulty,
                stop_reason=outcome.stop_reason,
                support=outcome.support,
                usage=usage,
                seed=seed,
                prompt_tokens=prompt_tokens,
                scores=best.scores if best else (),
            )
        )

    def _auto(
        self, question: str, context: SearchContext, generations: int
    ) -> Generator[Event, None, tuple[Strategy, Difficulty | None, str, Outcome]]:
        """Estimate the difficulty, look the strategy up, and run it on from the probe's samples."""
        if self.table is None or generations <= self.table.probe:
            kind = "weighted" if self.verifier else "majority"
            why = "the pack has no strategy table" if self.table is None else "too few generations to probe first"
            chosen = Strategy.parse(kind, generations)
            yield StrategyChosen(str(chosen), why)
            return chosen, None, why, (yield from run(question, chosen, context))
        sampled = yield from probe(question, context, self.table.probe)
        difficulty = Difficulty(self.table.bin(sampled.score), round(sampled.score, 4))
        yield DifficultyEstimated(difficulty.bin, difficulty.score)
        chosen, why = self.table.choose(difficulty.bin, generations)
        yield StrategyChosen(str(chosen), why)
        return chosen, difficulty, why, (yield from run(question, chosen, context, sampled.traces))

    @contextmanager
    def _under_way(self, call: Cancellation) -> Iterator[None]:
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise BackendError(
                f"this solver belongs to process {self._pid}, and a forked process has none of its threads; "
                "create a solver in each process"
            )

    def close(self) -> None:
        """Release the models; idempotent. Calls under way end with BackendError."""
        if os.getpid() == self._pid:
            self._models.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Solver holds loaded models and cannot be pickled; create one in each process")


def finish(events: Generator[Event | Done, None, None], stopped: Callable[[], bool]) -> Result | None:
    """The result of a solver's stream; None, and the search cancelled, once ``stopped``."""
    with closing(events):
        for event in events:
            if isinstance(event, Done):
                return event.result
            if stopped():
                break
    return None


def solve_all(
    solver: Solver, questions: Sequence[Question], settings: Settings, parallel: int
) -> Iterator[tuple[Question, Result]]:
    """Solve ``questions``, ``parallel`` at a time in one shared batch; yields them as they finish.

    Every question starts from the same seed, so that a resumed run draws what an uninterrupted one
    would. Closing the iterator cancels the questions under way.
    """

    def solve(question: Question, stopped: Callable[[], bool]) -> tuple[Question, Result] | None:
        events = solver.stream(question.question, settings.strategy, settings.budget, settings.seed)
        result = finish(events, stopped)
        return None if result is None else (question, result)

    return together(questions, solve, parallel)


def plan(
    pack: str | Pack | None = None,
    profile: str | Path | Profile | None = None,
    memory_mb: float | None = None,
    deadline_s: float | None = None,
    generations: int = DEFAULT_GENERATIONS,
    prompt_tokens: int | None = None,
    verifier: bool = True,
) -> Plan:
    """What :class:`Solver` would load with these arguments, and what it would take; loads nothing.

    Raises PackError, InputError, ResourceError where the cap is too small.
    """
    found = _pack(pack)
    return make_plan(
        found.policy,
        found.verifier if verifier else None,
        _profile(profile),
        memory_mb,
        deadline_s,
        generations,
        prompt_tokens,
    )


def _pack(pack: str | Pack | None) -> Pack:
    return pack if isinstance(pack, Pack) else find_pack(pack)


def _profile(profile: str | Path | Profile | None) -> Profile:
    if profile is None:
        return detect()[0]
    return profile if isinstance(profile, Profile) else load(profile)


def _result(events: Sequence[Event | Done]) -> Result:
    last = events[-1]
    assert isinstance(last, Done)
    return last.result


def uses_verifier(strategy: str) -> bool:
    """Whether scores make a difference to ``strategy``, "auto" included. Raises InputError for an unknown one."""
    return strategy == AUTO or Strategy.parse(strategy).uses_verifier
