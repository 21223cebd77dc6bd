"""A chat on the terminal: what was said, what runs, and the commands that begin with a slash."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from edge_tts.commands.asking import Asking, Loading
from edge_tts.commands.console import answer_line, one_line
from edge_tts.commands.search_tree import print_search
from edge_tts.commands.summary import print_notes, print_solution, print_text, print_unsure
from edge_tts.commands.watching import watching
from edge_tts.errors import EdgeError
from edge_tts.events import Done, Result
from edge_tts.files.folders import data_folder
from edge_tts.questions.recording import Recording
from edge_tts.questions.saved_search import SavedSearch, Turn
from edge_tts.search.wording import cost, why_stopped

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from rich.console import Console


CHAT_TOKENS = 1024
"""Room for the question and what was said before; older turns are left out."""
BYTES_PER_TOKEN = 3
"""Digits are a token each, words about four bytes; three bytes a token is on the safe side."""

HELP = """\
/model NAME  go on with another model (without NAME: say which one answers)
/why         show how the last answer was found
/new         forget what was said
/help        show this
/quit        leave (also Ctrl-D)
Ctrl-C stops the question that is running; its best answer so far is shown."""


@dataclass(frozen=True)
class _Exchange:
    """A question and what was answered, as the model is told it later."""

    question: str
    answer: str

    @property
    def tokens(self) -> int:
        """About as many as it takes in a prompt."""
        return (len(self.question.encode()) + len(self.answer.encode())) // BYTES_PER_TOKEN


class ChatSession:
    """One chat. It holds the loaded model; close it, or use it as a context manager."""

    def __init__(self, loading: Loading, asking: Asking, consoles: tuple[Console, Console], verbose: bool) -> None:
        """Loads the model; raises what loading raises."""
        self._loading, self._asking, self._verbose = loading, asking, verbose
        self._out, self._errors = consoles
        self._said: list[_Exchange] = []
        self._last: SavedSearch | None = None
        self._solver = loading.open(asking, self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._solver.close()

    def run(self) -> None:
        """Read lines until the input ends or /quit."""
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if interactive:
            self._errors.print(f"{self._solver.pack.title} is ready; /help shows the commands", style="dim")
            self._warn()
        for line in _typed_lines(history_file()) if interactive else _piped_lines():
            if line.strip() and not self.respond(line.strip()):
                return

    def respond(self, line: str) -> bool:
        """Answer a question or carry out a command; gives whether the chat goes on. Errors are said in one line."""
        try:
            if not line.startswith("/"):
                self._answer(line)
                return True
            word, _, rest = line.partition(" ")
            commands: dict[str, Callable[[str], None]] = {
                "/model": self._change_model,
                "/why": self._why,
                "/new": self._forget,
                "/help": lambda _: self._out.print(HELP),
            }
            if word in ("/quit", "/exit"):
                return False
            if word in commands:
                commands[word](rest.strip())
            else:
                self._errors.print(f"there is no command {one_line(word)}; /help shows those there are", style="yellow")
        except EdgeError as error:
            self._errors.print(f"error: {one_line(str(error))}", style="red", soft_wrap=True)
        return True

    # --- commands --------------------------------------------------------------------------------

    def _change_model(self, name: str) -> None:
        if name:
            loading = self._loading.of_model(name)
            loading.plan(self._asking)  # what cannot work is said while the other model is still loaded
            self._solver.close()
            try:
                self._solver = loading.open(self._asking, self._errors)
                self._loading = loading
            except EdgeError:
                self._solver = self._loading.open(self._asking, self._errors)
                raise
        self._errors.print(f"{self._solver.pack.title} answers", style="dim")
        if name:
            self._warn()

    def _why(self, _: str) -> None:
        if self._last is None:
            self._errors.print("nothing was asked yet", style="yellow")
        else:
            print_search(self._out, self._last)

    def _forget(self, _: str) -> None:
        self._said.clear()
        self._errors.print("what was said is forgotten", style="dim")

    def _warn(self) -> None:
        if self._solver.pack.format == "equations":
            self._errors.print("this model reads every question alone, without what was said before", style="yellow")

    # --- questions -------------------------------------------------------------------------------

    def _answer(self, question: str) -> None:
        earlier = self._remembered(question)
        recording = Recording()
        with _interrupts(self._solver.cancel):
            result = self._search(question, earlier, recording)
        settings = self._asking.settings(self._solver)
        self._last = SavedSearch.of(question, settings, recording, result, earlier)
        print_notes(self._errors, result)
        least = self._asking.least or 0.0
        if result.answer is None:
            if result.partial:
                print_text(self._out, "\n".join(result.partial))
            self._out.print("no answer", style="yellow")
        elif result.confidence < least:
            print_unsure(self._out, self._errors, result, least)
        else:
            print_solution(self._out, result)
            self._out.print(answer_line("answer", result.answer, result.confidence), soft_wrap=True)
            self._said.append(_Exchange(question, _as_said(result, result.answer)))
        spent = f"{why_stopped(result.stop_reason)}; {cost(result.usage, len(recording.attempts), result.strategy)}"
        self._errors.print(f"{spent}; /why shows how", style="dim", soft_wrap=True)

    def _search(self, question: str, earlier: Sequence[Turn], recording: Recording) -> Result:
        solver, asking = self._solver, self._asking
        messages = [{"role": turn.role, "content": turn.content} for turn in (*earlier, Turn("user", question))]
        events = solver.stream(messages, asking.strategy, asking.limits, asking.seed, **asking.options(solver))
        with watching(solver, asking, recording, self._errors, self._verbose) as show:
            for event in events:
                if isinstance(event, Done):
                    return event.result
                show(event)
        raise AssertionError("a stream ends with Done")

    def _remembered(self, question: str) -> tuple[Turn, ...]:
        """What was said before, as messages: the latest exchanges that fit beside ``question``."""
        room = CHAT_TOKENS - len(question.encode()) // BYTES_PER_TOKEN
        turns: list[Turn] = []
        for exchange in reversed(self._said):
            room -= exchange.tokens
            if room < 0:
                break
            turns[:0] = [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
        return tuple(turns)


def history_file() -> Path:
    """Where the lines typed in chats are kept, for the arrow keys."""
    return data_folder().parent / "chat_history"


def _as_said(result: Result, answer: str) -> str:
    """What the model is told later that it answered: its words, or the value of its program."""
    return "\n\n".join(result.steps) if result.format == "text" else f"The answer is {answer}."


@contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls ``stop``, a second one is a KeyboardInterrupt."""

    def interrupted(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _piped_lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", errors="replace")


def _typed_lines(history: Path) -> Iterator[str]:
    session = _prompt(history)
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            continue  # Ctrl-C throws the line away
        except EOFError:
            return


def _prompt(history: Path) -> PromptSession[str]:
    """A line editor that remembers what was typed; only its owner can read the file.

    Where the disk does not take a line, it is remembered in this chat only.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class History(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(string)

    with suppress(OSError):
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        return PromptSession(history=History(str(history)))
    return PromptSession(history=InMemoryHistory())
