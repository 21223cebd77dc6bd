"""The main path: question -> difficulty -> strategy -> search -> answer.

with Solver() as solver:
    print(solver.solve("Tom has 3 boxes of 8 pencils. How many pencils are there?").answer)
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from edge_tts.allocate import StrategyTable
from edge_tts.atomic import Progress, silent
from edge_tts.core import (
    Budget,
    DifficultyEstimated,
    Event,
    Outcome,
    Policy,
    StrategyChosen,
    Usage,
    Verifier,
)
from edge_tts.difficulty import probe
from edge_tts.errors import InputError
from edge_tts.limits import Plan, make_plan
from edge_tts.memory import peak_memory_mb
from edge_tts.pack import Pack, ensure, find
from edge_tts.profiles.loader import Profile, detect, load
from edge_tts.search.context import SearchContext
from edge_tts.search.select import Aggregate
from edge_tts.search.strategy import Strategy, run

AUTO = "auto"
DEFAULT_GENERATIONS = 16
MAX_QUESTION_CHARS = 20_000


@dataclass(frozen=True)
class Difficulty:
    """Predicted difficulty: bin 0 (easiest) to 4 (hardest) and the probe's score in [0, 1]."""

    bin: int
    score: float


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
    support: float
    """Share of the (weighted) vote the answer got, in [0, 1]."""
    usage: Usage
    seed: int
    scores: tuple[float, ...] = ()
    """Verifier scores of ``steps``, each in [0, 1]; empty where they were not scored."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class Solver:
    """A loaded pack that answers questions inside a memory cap and a deadline.

    Several threads may call one solver: their work shares the policy's batch. Close it, or use it
    as a context manager.
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
        progress: Progress = silent,
    ) -> None:
        """Plan, then load.

        ``pack`` is a name or folder (the built-in one by default, assembled on first use with
        ``progress``), ``profile`` a name, a file or None to detect this device. ``memory_mb`` and
        ``deadline_s`` override the profile's; ``generations`` sizes the default budget and
        ``prompt_tokens`` the context, for long questions. Without ``verifier`` none is loaded and
        its memory is free for more sequences: for strategies that do not score. Raises PackError, ResourceError where
        the cap is too small, InputError, BackendError.
        """
        self.pack = pack if isinstance(pack, Pack) else find(pack)
        if profile is None:
            profile = detect()[0]
        self.profile = profile if isinstance(profile, Profile) else load(profile)
        self.plan: Plan = make_plan(
            self.pack.policy,
            self.pack.verifier if verifier else None,
            self.profile,
            memory_mb,
            deadline_s,
            generations,
            prompt_tokens,
        )
        self.deadline_s: float | None = self.plan.deadline_s
        """Seconds for a question whose budget names none; None for as long as it takes."""
        self.pack = ensure(self.pack, progress)
        self.calculator = calculator and self.pack.calculator is not None
        """Whether the runtime writes the results of equations."""
        table = self.pack.table if self.plan.verifier else None
        self.table = StrategyTable.parse(table) if table is not None else None
        self._stack = ExitStack()
        try:
            self.policy = self._load_policy()
            self.verifier = self._load_verifier() if self.plan.verifier else None
        except BaseException:
            self._stack.close()
            raise

    def _load_policy(self) -> Policy:
        from edge_tts.runtimes.llama import LlamaPolicy

        calculator = self.pack.calculator if self.calculator else None
        policy = LlamaPolicy(self.pack.policy_path, self.plan.engine, self.pack.prompts, calculator)
        self._stack.callback(policy.close)
        return policy

    def _load_verifier(self) -> Verifier | None:
        from edge_tts.runtimes.verifiers import open_verifier

        if self.pack.verifier_path is None or self.pack.tokenizer_path is None:
            return None
        config = self.plan.verifier_config
        verifier = open_verifier(
            self.pack.verifier_path,
            self.pack.tokenizer_path,
            threads=1,  # a pass is a few dozen tokens: waking a second thread costs more than it saves
            cache_mb=config.cache_mb,
            pass_tokens=config.pass_tokens,
        )
        self._stack.callback(verifier.close)
        return verifier

    def solve(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        aggregate: Aggregate = "last",
    ) -> Result:
        """Answer ``question``. See :meth:`stream` for the arguments."""
        events = self.stream(question, strategy, budget, seed, aggregate)
        while True:
            try:
                next(events)
            except StopIteration as done:
                result: Result = done.value
                return result

    def stream(
        self,
        question: str,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        aggregate: Aggregate = "last",
    ) -> Generator[Event, None, Result]:
        """Yield events as the search goes on; the generator's value is the result.

        ``strategy`` is "auto" or what :meth:`Strategy.parse` reads. The deadline is the budget's
        ``seconds``, else ``deadline_s``, counted from here. Closing the generator cancels the search.
        Raises InputError for a question or strategy that cannot be used.
        """
        began = time.monotonic()
        question = checked(question)
        budget = budget or Budget()
        asked = None if strategy == AUTO else Strategy.parse(strategy, budget.generations or self.plan.generations)
        generations = budget.generations or (asked.generations if asked else self.plan.generations)
        budget = replace(budget, generations=generations, seconds=budget.seconds or self.deadline_s)
        context = SearchContext(
            self.policy,
            self.verifier,
            self.pack.prompts,
            self.pack.sampling,
            aggregate,
            seed,
            budget,
            None if budget.seconds is None else began + budget.seconds,
            self.profile.watts,
        )
        if asked is None:
            chosen, difficulty, reason, outcome = yield from self._auto(question, context, generations)
        else:
            chosen, difficulty, reason = asked, None, "asked for"
            yield StrategyChosen(str(chosen), reason)
            outcome = yield from run(question, chosen, context)
        usage = replace(context.usage, seconds=time.monotonic() - began, peak_memory_mb=peak_memory_mb())
        best = outcome.best
        return Result(
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
            scores=best.scores if best else (),
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

    def close(self) -> None:
        """Release the models; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def uses_verifier(strategy: str) -> bool:
    """Whether scores make a difference to ``strategy``, "auto" included. Raises InputError for an unknown one."""
    return strategy == AUTO or Strategy.parse(strategy).uses_verifier


def checked(question: str) -> str:
    """The question without surrounding space. Raises InputError where it is no question."""
    text = question.strip()
    if not text:
        raise InputError('the question is empty; write one, for example: edge-reason solve "What is 3 times 14?"')
    if len(text) > MAX_QUESTION_CHARS:
        raise InputError(
            f"the question has {len(text):,} characters, more than the {MAX_QUESTION_CHARS:,} allowed; shorten it"
        )
    if any(ord(c) < 32 and c not in "\n\r\t" for c in text):
        raise InputError("the question holds binary data (control characters); give plain text")
    return text
