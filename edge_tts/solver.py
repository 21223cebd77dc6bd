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
from typing import NoReturn, Self, Unpack

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    Budget,
    Policy,
    Trace,
    Usage,
    Verifier,
)
from edge_tts.errors import BackendError, InputError, ResourceError
from edge_tts.events import (
    Difficulty,
    Done,
    Event,
    Outcome,
    Result,
    StrategyChosen,
)
from edge_tts.files.atomic import Progress, silent
from edge_tts.packs.pack import Pack, prepare_pack
from edge_tts.packs.planned import DEFAULT_GENERATIONS, find, plan_for, profile_of
from edge_tts.profiles.loader import Profile, for_this_machine
from edge_tts.questions.reading import Question, checked_question
from edge_tts.questions.results import Settings
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.formats import Asked, AskedEquations, AskedText, FormatName
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message, as_messages, transcript
from edge_tts.reasoning.program_format import AskedProgram, suits
from edge_tts.reasoning.question_kind import AnswerKind, kind_of
from edge_tts.reasoning.text_prompt import EXAMPLES
from edge_tts.runtimes import trial
from edge_tts.runtimes.common_prefix import common_prefix
from edge_tts.runtimes.interrupts import holding_interrupts
from edge_tts.runtimes.loaded import LoadedModels, Models, ModelsConfig, VerifierFiles
from edge_tts.runtimes.program_verifier import ProgramVerifier, SignWeights
from edge_tts.search import explanation
from edge_tts.search.allocation import StrategyTable
from edge_tts.search.call import AUTO, Call, Format, Messages, Options
from edge_tts.search.concurrency import in_thread, together
from edge_tts.search.controller import Controller
from edge_tts.search.difficulty import Auto
from edge_tts.search.driver import Driver, Task, Way
from edge_tts.search.fit import Fit, parse
from edge_tts.search.ledger import Ledger
from edge_tts.search.pace import PREDICTED_SHARE, Pace
from edge_tts.search.selection import shares
from edge_tts.search.strategy import Strategy

ENDING_S, ENDING_SHARE = 0.1, 0.1
"""What is kept of a deadline for ending the search, in seconds and as a share of the deadline; the less counts."""


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
        model: str | Path | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Plan, then load.

        ``model`` is the path of a GGUF, a catalogue name, or a hub id ``owner/repo[:file]``; ``pack`` the name or
        folder of a pack. With neither, the best catalogued model that fits is used. A model is fetched, and a pack
        assembled, on first use with ``progress``. ``profile`` is a name, a file or None to detect this device.
        ``memory_mb`` and ``deadline_s`` override the profile's; ``generations`` sizes the default budget,
        ``prompt_tokens`` and ``max_tokens`` the context, for long questions and long answers. Without ``verifier``
        none is loaded and its memory is free for more sequences: for strategies that do not score. ``isolate`` loads
        the models in a process of their own, which ``memory_mb`` then is about: a crash in there is a
        BackendError of the calls under way, and the next call starts it again. Raises PackError,
        ResourceError where the cap is too small, InputError, BackendError.
        """
        self.profile = for_this_machine(profile_of(profile))
        cap = self.profile.memory_mb if memory_mb is None else memory_mb
        found, self.choice = find(pack, model, cap, progress)
        self.pack = found
        self.plan = plan_for(
            found, self.profile, memory_mb, deadline_s, generations, prompt_tokens, verifier, max_tokens
        )
        self._pace = Pace(PREDICTED_SHARE * self.plan.tokens_per_second)
        self.deadline_s: float | None = self.plan.deadline_s
        """Seconds for a question whose budget names none; None for as long as it takes."""
        self.pack = prepare_pack(found, progress)
        self.calculator = calculator and self.pack.calculator is not None
        """Whether the runtime writes the results of equations."""
        self._has_room = self.plan.verifier or not verifier or self.pack.verifier is None
        """Whether the memory cap leaves room for the pack's verifier, where one is wanted."""
        usable = self.plan.verifier or self.pack.verifier is None  # a table counts on the pack's PRM
        table = self.pack.table if usable else None
        self.table = StrategyTable.parse(table) if table is not None else None
        self.fits = parse(self.pack.controller)
        """What was fitted for the controller, by format."""
        signs = self.pack.program_verifier
        self._program_verifier = ProgramVerifier(SignWeights.parse(signs)) if signs else None
        self._isolate = isolate
        self._load()
        try:
            chat = self.policy.chat_model
            self._template = ChatTemplate(chat.template, chat.bos, chat.eos, chat.adds_bos)
            self._interpreter = Interpreter()
            self._keep_prefix()
        except BaseException:
            self._models.close()
            raise
        self._pid = os.getpid()
        self._calls: set[Cancellation] = set()
        """Of the calls under way."""

    def _load(self) -> None:
        self._models = self._open_models()
        self.policy: Policy = self._models.policy
        self.verifier: Verifier | None = self._models.verifier

    def verifier_of(self, format: FormatName) -> Verifier | None:
        """What scores traces in ``format``: the pack's PRM, else for programs what their lines give away."""
        return self.verifier or (self._program_verifier if format == "program" else None)

    def _keep_prefix(self) -> None:
        """Have what all prompts of programs begin with evaluated, or read from an earlier process."""
        if self.pack.writes_programs:
            messages = ((Message("user", text),) for text in "12")
            two = (AskedProgram.of(self._template, chat, self._interpreter, "math") for chat in messages)
            first, second = (asked.prompt(self.policy) for asked in two)
            self._models.keep_prefix(first[: common_prefix(first, second)])

    def _open_models(self) -> Models:
        pack, verifier = self.pack, None
        if self.plan.verifier and pack.verifier_path and pack.tokenizer_path:
            verifier = VerifierFiles(pack.verifier_path, pack.tokenizer_path, self.plan.verifier_config)
        config = ModelsConfig(pack.policy_path, self.plan.engine, verifier, pack.policy.parameters)
        if not self._isolate:
            if not pack.is_known:
                trial.require_sound(config.policy)
            return LoadedModels(config)
        from edge_tts.runtimes.isolated import IsolatedModels

        return IsolatedModels(config)

    def asked(
        self,
        question: Messages,
        kind: AnswerKind | None = None,
        format: Format = "auto",
    ) -> Asked:
        """``question`` as the policy is asked; see :class:`Options`. Raises InputError where it cannot be asked."""
        messages = as_messages(question)
        text = checked_question(messages[-1].content)
        if self.pack.format == "equations":
            if format != "auto":
                raise InputError(
                    f"the pack {self.pack.name} writes equations and nothing else, and the format is {format!r}; leave "
                    "it at auto, or take a chat model"
                )
            return AskedEquations(self.pack.prompts, text, self.pack.calculator if self.calculator else None)
        kind = kind or kind_of(text)
        computes = suits(text, kind)
        in_words = AskedText.of(self._template, messages, kind)
        if computes and kind == "math" and self.pack.has_text_examples:
            in_words = replace(in_words, examples=EXAMPLES)
        if format == "program" or (format == "auto" and self.pack.writes_programs and computes):
            try:
                self._interpreter.start()
                return AskedProgram.of(self._template, messages, self._interpreter, kind)
            except BackendError as error:
                if format == "program":
                    raise
                return replace(in_words, extra=(f"asked in words, since {error}",))
        return in_words

    def solve(
        self,
        question: Messages,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> Result:
        """Answer ``question``. See :meth:`stream` for the arguments."""
        return _result(list(self.stream(question, strategy, budget, seed, **options)))

    async def asolve(
        self,
        question: Messages,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> Result:
        """The same for asyncio. Cancelling the task stops the work at once."""
        async with aclosing(self.astream(question, strategy, budget, seed, **options)) as events:
            return _result([event async for event in events])

    def stream(
        self,
        question: Messages,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> Generator[Event | Done, None, None]:
        """Yield events as the search goes on; the last is :class:`Done` with the result.

        ``question`` is a text, or a chat whose last message asks. ``strategy`` is "auto" or what
        :meth:`Strategy.parse` reads. The deadline is the budget's ``seconds``, else ``deadline_s``, counted from
        here. Same seed, pack, width and threads: same answer, where time is not short. ``options`` are those of
        :class:`Options`. Closing the generator stops the work at once. Raises InputError for an argument that cannot
        be used.
        """
        return self._search(Call(question, strategy, budget or Budget(), seed, **options), Cancellation())

    def astream(
        self,
        question: Messages,
        strategy: str = AUTO,
        budget: Budget | None = None,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Event | Done, None]:
        """The same for asyncio; the search runs in a thread of its own."""
        cancel = Cancellation()
        return in_thread(self._search(Call(question, strategy, budget or Budget(), seed, **options), cancel), cancel)

    def cancel(self) -> None:
        """End every call under way with the best answer it has; from any thread."""
        for call in tuple(self._calls):
            call.request()

    def _search(self, call: Call, cancel: Cancellation) -> Generator[Event | Done, None, None]:
        began = time.monotonic()
        self._require_own_process()
        with self._under_way(cancel):
            messages = as_messages(call.question)  # once: it may be an iterator
            strategy = call.asked(self.plan.generations)
            if strategy and strategy.needs_verifier and not self._has_room:
                raise ResourceError(
                    f"{strategy} needs the pack's verifier, for which {self.plan.memory_cap_mb:g} MB of memory leave "
                    f"no room; allow more, at least {self.plan.verifier_needs_mb} MB, or use greedy, majority, "
                    "adaptive or revise"
                )
            ledger, generations = self._ledger(call, strategy, began, cancel)
            task = self._task(call, messages, strategy)
            driver = Driver(task, self.policy, self.verifier_of(task.asked.name), ledger, self._pace)
            if strategy:
                yield StrategyChosen(str(strategy), "asked for")
                proposer = strategy.proposer(call.aggregate)
                outcome = yield from driver.run(proposer)
                chosen: tuple[str, str, Difficulty | None] = (str(strategy), "asked for", None)
            else:
                proposer = auto = Auto(self.table, self._controller(call, task, generations))
                outcome = yield from driver.run(auto)
                chosen = (str(auto.strategy), auto.reason, auto.difficulty)
            explained = ""
            if call.explain and outcome.best is not None and self.pack.format != "equations":
                prompt = explanation.ask(self._template, self.policy, messages, outcome.best)
                explained = yield from explanation.explain(self.policy, prompt, ledger)
        usage = replace(ledger.usage, seconds=time.monotonic() - began, peak_memory_mb=self._models.peak_memory_mb())
        weighing = call.aggregate if proposer.uses_scores else None
        votes = shares(outcome.voted, outcome.best, weighing, ledger.seconds_left)
        result = _result_of(outcome, task, chosen, usage, votes)
        yield Done(replace(result, prompt_tokens=len(driver.root), explanation=explained))

    def _ledger(self, call: Call, strategy: Strategy | None, began: float, cancel: Cancellation) -> tuple[Ledger, int]:
        """What the call may spend, and how many generations that is."""
        generations = call.budget.generations or (strategy.generations if strategy else self.plan.generations)
        budget = replace(call.budget, generations=generations, seconds=call.budget.seconds or self.deadline_s)
        seconds = budget.seconds
        deadline = None if seconds is None else began + seconds - min(ENDING_S, ENDING_SHARE * seconds)
        verifier = self.verifier.info if self.verifier else None
        limits = (budget, deadline, self.profile.watts, cancel)
        return Ledger(self.policy.info, verifier, *limits, shared=call.shared), generations

    def _task(self, call: Call, messages: tuple[Message, ...], strategy: Strategy | None) -> Task:
        """The question as it is asked; in one format only where a ``strategy`` is named."""
        asked = self.asked(messages, call.kind, call.format)
        sampling = call.sampled(self.pack.sampling, asked.name)
        fit = self.fits.get(asked.name, Fit())
        others = self._other_ways(call, messages, asked.name, fit) if strategy is None else ()
        # A PRM reads one text; a question that goes on with a chat says little without it.
        whole = self.verifier is not None and self.pack.format == "text"
        text = transcript(messages) if whole else messages[-1].content.strip()
        # A PRM does not read what a vote does not weigh only to say how sure it is.
        scored = self.verifier_of(asked.name) is not None and (
            self.verifier is None or strategy is None or strategy.uses_verifier
        )
        calibration = fit.calibration.where(scored)
        return Task(text, asked, sampling, call.aggregate, call.seed, others, calibration)

    def _controller(self, call: Call, task: Task, generations: int) -> Controller:
        scored = self.verifier_of(task.asked.name) is not None
        fit = self.fits.get(task.asked.name, Fit())
        return fit.controller(generations, scored, call.aggregate, len(task.ways))

    def _other_ways(self, call: Call, messages: Sequence[Message], usual: FormatName, fit: Fit) -> tuple[Way, ...]:
        """The format that an unsure question is also asked in, where the caller leaves formats to the solver."""
        if fit.other is None or fit.other == usual or call.format != "auto" or not fit.pacing.other:
            return ()
        asked = self.asked(messages, call.kind, "text" if fit.other == "text" else "program")
        alike = self.verifier_of(asked.name) is self.verifier_of(usual)
        return (Way(asked, call.sampled(self.pack.sampling, asked.name), fit.other_weight, alike),)

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
            with holding_interrupts():
                self._interpreter.close()
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
    solver: Solver, questions: Sequence[Question], settings: Settings, parallel: int, **options: Unpack[Options]
) -> Iterator[tuple[Question, Result | Exception]]:
    """Solve ``questions``, ``parallel`` at a time in one shared batch; yields them as they finish.

    Where a question cannot be solved, the exception stands for its result, and the others go on. Every question
    starts from the same seed, so that a resumed run draws what an uninterrupted one would. Closing the iterator
    cancels the questions under way.
    """

    def solve(question: Question, stopped: Callable[[], bool]) -> tuple[Question, Result | Exception] | None:
        try:
            events = solver.stream(question.question, settings.strategy, settings.budget, settings.seed, **options)
            result = finish(events, stopped)
        except Exception as error:
            return question, error
        return None if result is None else (question, result)

    return together(questions, solve, parallel)


def _result_of(
    outcome: Outcome,
    task: Task,
    chosen: tuple[str, str, Difficulty | None],
    usage: Usage,
    votes: tuple[tuple[str, float], ...],
) -> Result:
    """The result of a search; ``chosen`` is the strategy, why it was run, and the difficulty if it was estimated."""
    best, (strategy, reason, difficulty) = outcome.best, chosen
    return Result(
        answer=best.answer if best else None,
        steps=best.steps if best else (),
        values=best.values if best else (),
        finished=best is not None,
        strategy=strategy,
        reason=reason,
        difficulty=difficulty,
        stop_reason=outcome.stop_reason,
        support=outcome.support,
        confidence=outcome.confidence,
        usage=usage,
        seed=task.seed,
        prompt_tokens=0,
        scores=best.scores if best else (),
        dropped_scores=outcome.dropped_scores,
        text=best.text if best else "",
        partial=() if best else _furthest(outcome.traces),
        notes=(*task.asked.notes, *_dropped(outcome.dropped_scores)),
        format=task.asked.name,
        votes=votes,
    )


def _dropped(count: int) -> tuple[str, ...]:
    """What there is to say of ``count`` traces whose scores were not in [0, 1]."""
    told = f"the verifier scored {count} {'trace' if count == 1 else 'traces'} outside [0, 1], which count as 0"
    return (f"{told}; run `edge-reason pack verify`",) if count else ()


def _furthest(traces: Sequence[Trace]) -> tuple[str, ...]:
    """The steps of the longest of ``traces``; its text where no step is complete."""
    longest = max(traces, key=lambda trace: len(trace.tokens), default=None)
    if longest is None:
        return ()
    return longest.steps or tuple(filter(None, (longest.text.strip(),)))


def _result(events: Sequence[Event | Done]) -> Result:
    last = events[-1]
    assert isinstance(last, Done)
    return last.result
