"""Planning, loading and solving in a separate thread, so that the event loop is never blocked."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from PySide6.QtCore import QObject, QThread, Signal

from edge_desktop.ask_view import Choices
from edge_tts import Budget, Done, EdgeError, Plan

if TYPE_CHECKING:
    from edge_tts import Solver

LOADING = "Loading the models …"
_BYTES_PER_TOKEN = 3
"""A low estimate, to be safe: a digit is a token, and a word has about four bytes for each token."""
_GRACE_MS = 250
"""Longest wait for a stopped search when the app closes."""


@dataclass(frozen=True)
class Started:
    """A search that begins now, with its models loaded."""

    plan: Plan
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
    """Plans, loads and solves in its thread, one task after another. Every method but ``close`` returns at once.

    Each ``solve`` emits exactly one of ``answered`` and ``failed``.
    """

    planned = Signal(object)
    """A :class:`Plan` that fits into the memory cap."""
    unplannable = Signal(str)
    loading = Signal(float, str)
    """The share done in [0, 1], and what is being done."""
    started = Signal(object)
    stepped = Signal(object)
    """An event of the search."""
    answered = Signal(object)
    """A :class:`Result`."""
    failed = Signal(str)
    """What went wrong, for the user; empty if the user stopped before the search began."""

    _plan_wanted = Signal(object, str)
    _answer_wanted = Signal(object, str, object)

    def __init__(self, pack: str | None = None) -> None:
        """``pack`` is a name or folder; the built-in one by default."""
        super().__init__()
        self._call = _Call()
        self._thread = QThread()
        self._worker = _Worker(self, pack)
        self._worker.moveToThread(self._thread)
        self._plan_wanted.connect(self._worker.plan)
        self._answer_wanted.connect(self._worker.solve)
        self._thread.start()

    def plan(self, choices: Choices, question: str) -> None:
        """Plan a search with ``choices``; emits ``planned`` or ``unplannable``."""
        self._plan_wanted.emit(choices, question)

    def solve(self, question: str, choices: Choices) -> None:
        """Answer ``question``, after loading the models if necessary."""
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
        self._thread.quit()
        if not self._thread.wait(_GRACE_MS):
            for child in psutil.Process().children():  # a child that is still loading models
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            self._thread.wait()
        self._worker.close()


class _StopError(Exception):
    """The user stopped while a pack was being assembled."""


class _Worker(QObject):
    """Runs in the engine's thread and emits the engine's signals."""

    def __init__(self, engine: Engine, pack: str | None) -> None:
        super().__init__()
        self._engine = engine
        self._pack = pack
        self._solver: Solver | None = None

    def plan(self, choices: Choices, question: str) -> None:
        from edge_tts import plan

        try:
            self._engine.planned.emit(plan(self._pack, *_limits(choices, question)))
        except EdgeError as error:
            self._engine.unplannable.emit(str(error))

    def solve(self, choices: Choices, question: str, call: _Call) -> None:
        message = ""
        try:
            solver = self._loaded(choices, question, call)
            if call.begin():
                self._search(solver, choices, question, call)
                return
        except _StopError:
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

    def _loaded(self, choices: Choices, question: str, call: _Call) -> Solver:
        """A solver for ``choices``. Reuses the present one if it has the models that would be loaded."""
        from edge_tts import Solver, plan

        limits = _limits(choices, question)
        if self._solver is not None:
            if _models(self._solver.plan) == _models(plan(self._pack, *limits)):
                return self._solver
            self.close()
        self._engine.loading.emit(0.0, LOADING)

        def progress(fraction: float, what: str) -> None:
            if call.stopped:
                raise _StopError
            self._engine.loading.emit(fraction, f"First start: {what}")

        # A child process for the models: the memory cap then covers them without Qt, a crash there ends one answer
        # and not the app, and loading blocks the window for 26 ms at most instead of 253 (README).
        self._solver = Solver(self._pack, *limits, isolate=True, progress=progress)
        return self._solver

    def _search(self, solver: Solver, choices: Choices, question: str, call: _Call) -> None:
        deadline = choices.deadline_s or solver.plan.deadline_s
        marker = solver.pack.prompts.answer_marker
        self._engine.started.emit(Started(solver.plan, choices.generations, deadline, marker))
        budget = Budget(generations=choices.generations, seconds=deadline)
        for event in solver.stream(question, choices.strategy, budget):
            if isinstance(event, Done):
                self._engine.answered.emit(event.result)
            else:
                self._engine.stepped.emit(event)
            if call.stopped:  # the stop may have come before there was a call to cancel
                solver.cancel()


def _limits(choices: Choices, question: str) -> tuple[str | None, float | None, float | None, int, int]:
    """Profile, memory cap, deadline, generations and prompt tokens, in the order of :func:`edge_tts.plan`."""
    tokens = len(question.encode("utf-8", errors="replace")) // _BYTES_PER_TOKEN + 16
    return choices.profile, choices.memory_mb, choices.deadline_s, choices.generations, tokens


def _models(plan: Plan) -> tuple[object, ...]:
    """The parts of a plan that decide which models are loaded, and how."""
    return plan.engine, plan.verifier, plan.verifier_config
