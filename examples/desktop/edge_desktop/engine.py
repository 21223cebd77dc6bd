"""Planning, loading and solving in a separate thread, so that the event loop is never blocked."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from PySide6.QtCore import QObject, QThread, Signal

from edge_desktop.ask_view import Choices
from edge_desktop.models import Chosen, choose
from edge_tts import BackendError, Budget, Done, EdgeError, Plan
from edge_tts.packs.offers import offers

if TYPE_CHECKING:
    from edge_tts import Solver
    from edge_tts.profiles.loader import Profile

LOADING = "Loading the models …"
_BYTES_PER_TOKEN = 3
"""A low estimate, to be safe: a digit is a token, and a word has about four bytes for each token."""
_GRACE_MS = 250
"""Longest wait for a stopped search when the app closes."""


@dataclass(frozen=True)
class Planned:
    """A model that was chosen, and the plan for it."""

    reference: str
    """What the user chose."""
    chosen: Chosen
    plan: Plan | None
    """None where only the model's file tells what it takes, and it is not here."""


@dataclass(frozen=True)
class Started:
    """A search that begins now, with its models loaded."""

    plan: Plan
    model: str
    scores: bool
    """Whether a verifier scores the candidates."""
    generations: int
    deadline_s: float
    marker: str
    """Text before the answer in a candidate's last step."""


class _Call:
    """The state of one question: loading, then searching, or stopped before the search began."""

    def __init__(self) -> None:
        self.stopped = False
        self._begun = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Begin the search unless it was stopped. Returns whether it has begun."""
        with self._lock:
            self._begun = self._begun or not self.stopped
            return self._begun

    def stop(self) -> bool:
        """Stop. Returns True if the search had not begun; then it never will."""
        with self._lock:
            self.stopped = True
            return not self._begun


class Engine(QObject):
    """Plans in one thread, loads and solves in another, one task after another. Every method but ``close`` returns at
    once.

    Each ``solve`` emits exactly one of ``answered`` and ``failed``.
    """

    offered = Signal(object)
    """The models to choose from, a tuple of :class:`Offer`."""
    planned = Signal(object)
    """A :class:`Planned`; its plan fits into the memory cap."""
    unplannable = Signal(str)
    loading = Signal(float, str)
    """The share done in [0, 1], and what is being done."""
    loaded = Signal(str)
    """The name of the model that is loaded now; empty for none."""
    started = Signal(object)
    stepped = Signal(object)
    """An event of the search."""
    answered = Signal(object)
    """A :class:`Result`."""
    failed = Signal(str)
    """What went wrong, for the user; empty if the user stopped before the search began."""

    _offers_wanted = Signal()
    _plan_wanted = Signal(object, str)
    _models_wanted = Signal(object, str, bool, int)
    _answer_wanted = Signal(object, str, object)

    def __init__(self, built_in: str | None = None) -> None:
        """``built_in`` is the folder of the built-in pack where it is not in its usual place."""
        super().__init__()
        self._call = _Call()
        self.latest = 0
        """The number of the latest ``prepare``; earlier ones that still wait are out of date."""
        self._thread, self._planning = QThread(), QThread()
        self._worker = _Worker(self, built_in)
        self._worker.moveToThread(self._thread)
        self._planner = _Planner(self, built_in)
        self._planner.moveToThread(self._planning)
        self._offers_wanted.connect(self._planner.offer)
        self._plan_wanted.connect(self._planner.plan)
        self._models_wanted.connect(self._worker.prepare)
        self._answer_wanted.connect(self._worker.solve)
        self._thread.start()
        self._planning.start()

    def offer(self) -> None:
        """List the models; emits ``offered``."""
        self._offers_wanted.emit()

    def plan(self, choices: Choices, question: str) -> None:
        """Plan a search with ``choices``; emits ``planned`` or ``unplannable``."""
        self._plan_wanted.emit(choices, question)

    def prepare(self, choices: Choices, question: str, load: bool) -> None:
        """Unload a model that is not chosen any more, and with ``load`` load what ``solve`` would load."""
        self.latest += 1
        self._models_wanted.emit(choices, question, load, self.latest)

    def solve(self, question: str, choices: Choices) -> None:
        """Answer ``question``, after loading the models if necessary."""
        self.latest += 1
        self._call = _Call()
        self._answer_wanted.emit(choices, question, self._call)

    def stop(self) -> None:
        """End the running search with its best answer. Loading goes on in the background, for the next question."""
        if self._call.stop():
            self.failed.emit("")
        else:
            self._worker.cancel()

    def close(self) -> None:
        """Stop and release everything."""
        self.stop()
        self.latest += 1
        self._planning.quit()
        self._thread.quit()
        if not self._thread.wait(_GRACE_MS):
            for child in psutil.Process().children():  # a child that is still loading models
                with suppress(psutil.Error):
                    if "resource_tracker" not in " ".join(child.cmdline()):
                        child.kill()
            self._thread.wait()
        self._planning.wait()
        self._worker.close()


class _StopError(Exception):
    """The user stopped while a pack was being assembled."""


class _Planner(QObject):
    """Runs in a thread of its own, so that plans do not wait for models that are being loaded."""

    def __init__(self, engine: Engine, built_in: str | None) -> None:
        super().__init__()
        self._engine = engine
        self._built_in = built_in

    def offer(self) -> None:
        try:
            self._engine.offered.emit(offers(built_in=self._built_in))
        except EdgeError as error:
            self._engine.unplannable.emit(str(error))

    def plan(self, choices: Choices, question: str) -> None:
        try:
            self._engine.planned.emit(_planned(choices, question, self._built_in))
        except EdgeError as error:
            self._engine.unplannable.emit(str(error))


class _Worker(QObject):
    """Holds the models. Runs in the engine's thread and emits the engine's signals."""

    def __init__(self, engine: Engine, built_in: str | None) -> None:
        super().__init__()
        self._engine = engine
        self._built_in = built_in
        self._solver: Solver | None = None

    def prepare(self, choices: Choices, question: str, load: bool, number: int) -> None:
        if number != self._engine.latest:
            return
        try:
            planned = _planned(choices, question, self._built_in)
            pack = planned.chosen.pack
            if self._solver is not None and (pack is None or self._solver.pack.policy_path != pack.policy_path):
                self.close()
            if load and planned.chosen.is_here:
                self._loaded(choices, question, planned, _Call())
        except EdgeError:
            self._engine.loaded.emit("")  # whoever solves is told why
        except Exception:
            self.close()

    def solve(self, choices: Choices, question: str, call: _Call) -> None:
        message = ""
        try:
            solver = self._loaded(choices, question, _planned(choices, question, self._built_in), call)
            if call.begin():
                self._search(solver, choices, question, call)
                return
        except _StopError:
            self._engine.loaded.emit("")
            return
        except EdgeError as error:
            message = str(error)
        except Exception as error:
            self.close()  # the state is unknown, so load everything again for the next question
            message = f"something unexpected went wrong ({error!r}); try again"
        if call.begin():
            self._engine.failed.emit(message)

    def cancel(self) -> None:
        """End the running search with its best answer; from any thread."""
        if self._solver is not None:
            self._solver.cancel()

    def close(self) -> None:
        """Release the models."""
        solver, self._solver = self._solver, None
        if solver is not None:
            solver.close()
            self._engine.loaded.emit("")

    def _loaded(self, choices: Choices, question: str, planned: Planned, call: _Call) -> Solver:
        """A solver for ``choices``. Reuses the present one if it has the models that would be loaded."""
        from edge_tts import Solver

        pack = planned.chosen.pack
        if pack is None or planned.plan is None or not planned.chosen.is_here:
            name = planned.chosen.name
            raise BackendError(f"{name} is not on this machine; download it first, or choose another model")
        if self._solver is not None:
            same = self._solver.pack.policy_path == pack.policy_path
            if same and _models(self._solver.plan) == _models(planned.plan):
                return self._solver
            self.close()  # before the next is loaded: both need not fit the memory
        self._engine.loading.emit(0.0, LOADING)

        def progress(fraction: float, what: str) -> None:
            if call.stopped:
                raise _StopError
            self._engine.loading.emit(fraction, f"First start: {what}")

        # A child process for the models: the memory cap then covers them without Qt, a crash there ends one answer
        # and not the app, and loading blocks the window for 26 ms at most instead of 253 (README).
        limits = _limits(choices, question)
        self._solver = Solver(pack, choices.profile, *limits, isolate=True, progress=progress)
        self._engine.loaded.emit(pack.name)
        return self._solver

    def _search(self, solver: Solver, choices: Choices, question: str, call: _Call) -> None:
        deadline = choices.deadline_s or solver.plan.deadline_s
        marker = solver.pack.prompts.answer_marker
        scores = solver.verifier is not None
        self._engine.started.emit(Started(solver.plan, solver.pack.name, scores, choices.generations, deadline, marker))
        budget = Budget(generations=choices.generations, seconds=deadline)
        events = solver.stream(question, choices.strategy, budget, format=choices.format, explain=choices.explain)
        for event in events:
            if isinstance(event, Done):
                self._engine.answered.emit(event.result)
            else:
                self._engine.stepped.emit(event)
            if call.stopped:  # the stop may have come before there was a call to cancel
                solver.cancel()


def _planned(choices: Choices, question: str, built_in: str | None) -> Planned:
    """The model and the plan for ``choices``; loads nothing. Raises EdgeError."""
    from edge_tts.packs.planned import plan_for, profile_of

    profile: Profile = profile_of(choices.profile)
    memory = profile.memory_mb if choices.memory_mb is None else choices.memory_mb
    chosen = choose(choices.model, memory, built_in)
    plan = plan_for(chosen.pack, profile, *_limits(choices, question)) if chosen.pack else None
    return Planned(choices.model, chosen, plan)


def _limits(choices: Choices, question: str) -> tuple[float | None, float | None, int, int]:
    """Memory cap, deadline, generations and prompt tokens, in the order of :class:`edge_tts.Solver`."""
    tokens = len(question.encode("utf-8", errors="replace")) // _BYTES_PER_TOKEN + 16
    return choices.memory_mb, choices.deadline_s, choices.generations, tokens


def _models(plan: Plan) -> tuple[object, ...]:
    """The parts of a plan that decide which models are loaded, and how."""
    return plan.engine, plan.verifier, plan.verifier_config
