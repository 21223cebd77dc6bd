"""Models in a child process: a crash in native code ends the calls under way, and not the program.

The host plans and searches; the child holds the models. They talk through a pipe: the host sends tasks, and the
child answers each with items as they come, then with :class:`Ended` or an error. When the host ends, in whatever
way, the child exits.
"""

from __future__ import annotations

import multiprocessing.process
import os
import queue
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    ChatModelInfo,
    ModelInfo,
    Request,
    Scored,
    SpecialToken,
    StepEvents,
    Verifier,
)
from edge_tts.errors import BackendError, EdgeError
from edge_tts.runtimes.loaded import LoadedModels, Models, ModelsConfig

LOOK_SECONDS = 1.0
"""How often the child checks that its host is alive: a process forked by the host may keep the pipe open."""
END_SECONDS = 5.0
"""How long to wait for the exit code of a child whose pipe has closed."""


# --- what is sent ----------------------------------------------------------------------------

Items: TypeAlias = "Generator[Any, Sequence[int] | None, None]"
"""What a task gives; indices of requests that are not wanted any more are sent back."""


@dataclass(frozen=True)
class Tokenize:
    """A task of the policy that yields one item, the tokens."""

    text: str
    special: bool

    def run(self, models: Models, cancel: Cancellation) -> Items:
        yield models.policy.tokenize(self.text, self.special)


@dataclass(frozen=True)
class LookUp:
    """A task of the policy that yields one item, the special token or None."""

    token: int

    def run(self, models: Models, cancel: Cancellation) -> Items:
        yield (models.policy.special(self.token),)  # None alone would end the call


@dataclass(frozen=True)
class Generate:
    """A task of the policy that yields step events."""

    requests: tuple[Request, ...]
    deadline: float | None
    """An instant of ``time.monotonic()``, which is the same for all processes."""

    def run(self, models: Models, cancel: Cancellation) -> Items:
        return models.policy.generate(self.requests, self.deadline, cancel)


@dataclass(frozen=True)
class Score:
    """A task of the verifier that yields the scores of each trace."""

    question: str
    traces: tuple[tuple[str, ...], ...]

    def run(self, models: Models, cancel: Cancellation) -> Items:
        assert models.verifier is not None
        yield from models.verifier.score(self.question, self.traces, cancel)


@dataclass(frozen=True)
class KeepPrefix:
    """A task of the policy that yields nothing."""

    tokens: tuple[int, ...]

    def run(self, models: Models, cancel: Cancellation) -> Items:
        models.keep_prefix(self.tokens)
        yield from ()


Task = Tokenize | LookUp | Generate | Score | KeepPrefix


@dataclass(frozen=True)
class Drop:
    """Said about a task under way: these of its requests are not wanted any more."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class State:
    """What the host knows of the child's models between tasks."""

    peak_memory_mb: float
    token_seconds: float
    """Predicted time of one verifier token."""

    @classmethod
    def of(cls, models: Models) -> State:
        return cls(models.peak_memory_mb(), models.verifier.seconds(1) if models.verifier else 0.0)


@dataclass(frozen=True)
class Loaded:
    """The first message of a child."""

    policy: ModelInfo
    chat_model: ChatModelInfo
    width: int
    verifier: ModelInfo | None
    state: State


@dataclass(frozen=True)
class Ended:
    """The last message about a task that succeeded."""

    state: State


# --- host ------------------------------------------------------------------------------------


class IsolatedModels:
    """Models in a child process. If it has ended, the next call starts another."""

    def __init__(self, config: ModelsConfig) -> None:
        """Start the child and wait until it has loaded. Raises PackError or BackendError."""
        self._config = config
        self._lock = threading.Lock()
        self._closed = False
        self._child = _Child(config)
        loaded = self._child.loaded()
        self.policy = _IsolatedPolicy(self, loaded)
        self.verifier: Verifier | None = _IsolatedVerifier(self, loaded.verifier) if loaded.verifier else None

    @property
    def state(self) -> State:
        return self._child.state

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def run(self, task: Task, cancel: Cancellation | None = None) -> Items:
        """The items of ``task``; closing the generator cancels it, and so does ``cancel``, which ends it at once."""
        with self._lock:
            if self._closed:
                raise BackendError("the models are closed; load them again")
            if self._child.has_ended:
                self._child = _Child(self._config)
            child = self._child
        yield from child.run(task, cancel or Cancellation())

    def keep_prefix(self, tokens: tuple[int, ...]) -> None:
        for _ in self.run(KeepPrefix(tokens)):
            pass

    def peak_memory_mb(self) -> float:
        return self.state.peak_memory_mb

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._child.close()


class _IsolatedPolicy:
    """A :class:`~edge_tts.core.Policy`."""

    def __init__(self, models: IsolatedModels, loaded: Loaded) -> None:
        self.info, self.chat_model, self.width = loaded.policy, loaded.chat_model, loaded.width
        self._models = models

    def special(self, token: int) -> SpecialToken | None:
        found: SpecialToken | None
        ((found,),) = self._models.run(LookUp(token))
        return found

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        tokens: tuple[int, ...]
        (tokens,) = self._models.run(Tokenize(text, special))
        return tokens

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        return self._models.run(Generate(tuple(requests), deadline), cancel)

    def close(self) -> None:
        self._models.close()


class _IsolatedVerifier:
    """A :class:`~edge_tts.core.Verifier`."""

    def __init__(self, models: IsolatedModels, info: ModelInfo) -> None:
        self.info = info
        self._models = models

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        return list(self._models.run(Score(question, tuple(map(tuple, traces))), cancel))

    def seconds(self, tokens: int) -> float:
        return tokens * self._models.state.token_seconds

    def close(self) -> None:
        self._models.close()


class _Child:
    """One child process, and the thread that reads its messages. Tasks may be sent before it has loaded."""

    def __init__(self, config: ModelsConfig) -> None:
        spawn = get_context("spawn")  # a forked process would inherit the host's locks without the threads behind them
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, config), name="edge-models")
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}
        """By number of the task; None tells a caller to stop waiting."""
        self._tasks = 0
        self._loaded: queue.SimpleQueue[Loaded | EdgeError] = queue.SimpleQueue()
        self._end: EdgeError | None = None
        self.state = State(0.0, 0.0)
        self._process.start()
        theirs.close()
        # The child exits when the pipe closes. multiprocessing would wait for it at exit, even in a forked process.
        vars(multiprocessing.process)["_children"].discard(self._process)
        threading.Thread(target=self._hear, name="edge-models", daemon=True).start()

    def loaded(self) -> Loaded:
        """Wait until the child has loaded the models. Raises what loading raised."""
        try:
            loaded = self._loaded.get()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if isinstance(loaded, EdgeError):
            raise loaded
        return loaded

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._end is not None or bool(wait([self._process.sentinel], 0))

    def run(self, task: Task, cancel: Cancellation) -> Items:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            self._tasks += 1
            number = self._tasks
        self._answers[number] = answers

        def stop() -> None:
            answers.put(None)
            self._send((number, None))

        ended = False
        try:
            if self._end:
                raise self._end
            with cancel.telling(stop):
                self._send((number, task))
                while not ended:
                    item = answers.get()
                    if item is None or cancel.requested:
                        return
                    ended = isinstance(item, Ended | EdgeError)
                    if isinstance(item, EdgeError):
                        raise item
                    if not ended and (dropped := (yield item)):
                        self._send((number, Drop(tuple(dropped))))
        finally:
            del self._answers[number]
            if not ended:
                self._send((number, None))

    def close(self) -> None:
        """Kill the process."""
        self._end = self._end or BackendError("the models were closed while they were working")
        self._process.kill()
        self._process.join()

    def _send(self, message: tuple[int, Task | Drop | None]) -> None:
        with self._lock, suppress(OSError):  # if the child has ended, _hear finds out
            self._pipe.send(message)

    def _hear(self) -> None:
        try:
            while True:
                number, item = self._pipe.recv()
                if isinstance(item, Loaded | Ended):
                    self.state = item.state
                if isinstance(item, Loaded):
                    self._loaded.put(item)
                elif number == 0:
                    self._end = item
                elif answers := self._answers.get(number):  # the caller may have left meanwhile
                    answers.put(item)
        except (EOFError, OSError):
            self._end = self._end or self._crash()
        self._loaded.put(self._end)
        for answers in tuple(self._answers.values()):
            answers.put(self._end)

    def _crash(self) -> BackendError:
        self._process.join(END_SECONDS)
        code = self._process.exitcode
        if self.state.peak_memory_mb:
            advice = "the next call starts another"
        else:
            advice = 'a program that starts one has to keep its own start below `if __name__ == "__main__":`'
        how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
        return BackendError(f"the process that holds the models ended {how}; {advice}")


# --- child -----------------------------------------------------------------------------------


def serve(pipe: Connection[Any, Any], config: ModelsConfig) -> None:
    """Load the models and work on the host's tasks until the host ends or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the host
    try:
        models = LoadedModels(config)
    except Exception as error:
        pipe.send((0, _as_edge_error(error)))
        return
    _Server(pipe, models).run()
    os._exit(0)  # without waiting for native threads, whose results nobody reads


class _Server:
    """Runs each task in a thread of its own; the policy and the verifier decide their order."""

    def __init__(self, pipe: Connection[Any, Any], models: Models) -> None:
        self._pipe = pipe
        self._models = models
        self._lock = threading.Lock()
        self._running: dict[int, tuple[Cancellation, queue.SimpleQueue[int]]] = {}
        """Of each task: how to cancel it, and the requests to drop from it."""
        policy, verifier = models.policy, models.verifier.info if models.verifier else None
        pipe.send((0, Loaded(policy.info, policy.chat_model, policy.width, verifier, State.of(models))))

    def run(self) -> None:
        host = parent_process()
        while True:
            try:
                while not self._pipe.poll(LOOK_SECONDS):
                    if host is not None and os.getppid() != host.pid:
                        return
                number, task = self._pipe.recv()
            except (EOFError, OSError):
                return
            if task is not None and not isinstance(task, Drop):
                self._running[number] = Cancellation(), queue.SimpleQueue()
                threading.Thread(target=self._work, args=(number, task), daemon=True).start()
            elif running := self._running.get(number):  # it may end at any moment
                cancel, dropped = running
                for index in task.indices if task else ():
                    dropped.put(index)
                if task is None:
                    cancel.request()

    def _work(self, number: int, task: Task) -> None:
        cancel, dropped = self._running[number]
        items = task.run(self._models, cancel)
        try:
            with suppress(StopIteration):
                self._send(number, next(items))
                while True:
                    self._send(number, items.send([dropped.get() for _ in range(dropped.qsize())] or None))
            self._send(number, Ended(State.of(self._models)))
        except Exception as error:
            self._send(number, _as_edge_error(error))
        del self._running[number]

    def _send(self, number: int, item: object) -> None:
        with self._lock, suppress(OSError):  # the host has ended
            self._pipe.send((number, item))


def _as_edge_error(error: Exception) -> EdgeError:
    return error if isinstance(error, EdgeError) else BackendError(f"the models' process failed: {error!r}")
