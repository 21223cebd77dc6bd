"""The chat: follow-up questions, commands, Ctrl-C, lines from a pipe."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from showing import console, finished, result, said

from edge_tts.commands.asking import Asking
from edge_tts.commands.chat_session import CHAT_TOKENS, ChatSession, _typed_lines
from edge_tts.core import Budget
from edge_tts.errors import InputError
from edge_tts.events import BestSoFar, Done, Event
from edge_tts.packs.pack import Pack


@dataclass
class Answering:
    """A solver that answers 42, and a loading that opens it."""

    model: str = "first"
    format: str = "text"
    answer: str | None = "42"
    asked: list[list[tuple[str, str]]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    """Models that plan well and cannot be opened."""
    interrupts: int = 0
    """Ctrl-C pressed while a question is running."""
    cancelled: bool = False

    deadline_s = None
    calculator = True
    plan_: Any = field(default_factory=lambda: SimpleNamespace(generations=4))

    @property
    def pack(self) -> Any:
        return SimpleNamespace(title=self.model, format=self.format, sampling=None)

    def open(self, asking: Asking, errors: object) -> Answering:
        self.opened.append(self.model)
        if self.model in self.broken:
            raise InputError(f"{self.model} is broken")
        return self

    def plan(self, asking: Asking) -> None:
        if self.model == "nosuch":
            raise InputError("no model 'nosuch'")

    def of_model(self, name: str) -> Answering:
        return replace(self, model=name)

    def close(self) -> None:
        self.closed.append(self.model)

    def cancel(self) -> None:
        self.cancelled = True

    def stream(
        self, messages: Sequence[dict[str, str]], strategy: str, budget: Budget, seed: int, **_: object
    ) -> Generator[Event | Done, None, None]:
        self.asked.append([(message["role"], message["content"]) for message in messages])
        if messages[-1]["content"] == "bad":
            raise InputError("the question\nis bad")
        yield finished(0, "It is 42.", answer=self.answer)
        yield BestSoFar("42", 1.0, 0.67)
        for _ in range(self.interrupts):
            os.kill(os.getpid(), signal.SIGINT)
        found = result(self.answer, 0.7, steps=("It is 42.",), format="text", votes=(("42", 1.0),))
        yield Done(replace(found, stop_reason="cancelled") if self.cancelled else found)


def chat(solver: Answering, *lines: str, least: float | None = None) -> tuple[list[bool], str, str]:
    """What ``respond`` gave for each line, standard output and standard error."""
    out, errors = console(), console(width=200)
    asking = Asking("auto", Budget(), least=least)
    with ChatSession(solver, asking, (out, errors), False) as session:  # type: ignore[arg-type]
        goes_on = [session.respond(line) for line in lines]
    return goes_on, said(out), said(errors)


def test_follow_up_questions_come_with_what_was_said() -> None:
    solver = Answering()
    _, out, errors = chat(solver, "First?", "Second?", "/new", "Third?")
    assert solver.asked == [
        [("user", "First?")],
        [("user", "First?"), ("assistant", "It is 42."), ("user", "Second?")],
        [("user", "Third?")],
    ]
    assert out.count("It is 42.\nanswer: 42 (likely, about 70%)\n") == 3
    assert errors.count("the vote was settled; 19.9 s, 1 sample, 488 tokens; /why shows how\n") == 3


def test_a_program_is_told_later_by_its_value() -> None:
    solver = Answering()
    solver.stream = _with_format("program", solver.stream)  # type: ignore[method-assign]
    chat(solver, "First?", "Second?")
    assert solver.asked[1][1] == ("assistant", "The answer is 42.")


def _with_format(format: str, stream: Any) -> Any:
    def changed(*arguments: Any, **options: Any) -> Generator[Event | Done, None, None]:
        for event in stream(*arguments, **options):
            yield Done(replace(event.result, format=format)) if isinstance(event, Done) else event

    return changed


def test_the_oldest_turns_are_left_out_where_they_do_not_fit() -> None:
    solver = Answering()
    long = "x" * CHAT_TOKENS
    chat(solver, "short", long, long + "y", long + "z")
    assert [content for role, content in solver.asked[-1] if role == "user"] == [long + "y", long + "z"]


def test_an_unanswered_question_is_not_part_of_the_chat() -> None:
    solver = Answering(answer=None)
    _, out, _ = chat(solver, "First?", "Second?")
    assert out == "no answer\nno answer\n"
    assert solver.asked[1] == [("user", "Second?")]


def test_below_the_least_confidence_the_answers_are_shown_and_none_is_remembered() -> None:
    solver = Answering()
    _, out, errors = chat(solver, "First?", "Second?", least=0.8)
    assert out == "not sure\n  42: 100% of the vote\n" * 2
    assert errors.count("confidence 70% is below the 80% asked for\n") == 2
    assert solver.asked[1] == [("user", "Second?")]


def test_errors_are_a_line_and_the_chat_goes_on() -> None:
    goes_on, out, errors = chat(Answering(), "bad", "/nosuch", "Good?")
    assert goes_on == [True, True, True]
    assert errors.startswith("error: the question is bad\nthere is no command /nosuch; /help shows those there are\n")
    assert "answer: 42" in out


def test_why_shows_the_last_search() -> None:
    _, out, errors = chat(Answering(), "/why", "First?", "/why")
    assert errors.startswith("nothing was asked yet\n")
    assert "First?\n└── 42  1 sample, 100% of the vote\n    └── #1\n        It is 42.\n" in out


def test_help_names_every_command_and_quit_ends() -> None:
    goes_on, out, _ = chat(Answering(), "/help", "/quit")
    assert goes_on == [True, False]
    assert all(command in out for command in ("/model NAME", "/why", "/new", "/help", "/quit", "Ctrl-C"))


def test_another_model_takes_the_place_of_the_first() -> None:
    solver = Answering()
    _, _, errors = chat(solver, "/model", "/model second", "Hello?")
    assert (solver.opened, solver.closed) == (["first", "second"], ["first", "second"])
    assert "first answers\nsecond answers\n" in errors


def test_a_model_that_cannot_be_loaded_leaves_the_first() -> None:
    solver = Answering(broken=("second",))
    _, out, errors = chat(solver, "/model nosuch", "/model second", "Hello?")
    assert errors.startswith("error: no model 'nosuch'\nerror: second is broken\n")
    assert (solver.opened, solver.closed) == (["first", "second", "first"], ["first", "first"])
    assert "answer: 42" in out


def test_a_model_that_forgets_says_so() -> None:
    _, _, errors = chat(Answering(format="equations"), "/model second")
    assert "this model reads every question alone, without what was said before\n" in errors


def test_ctrl_c_ends_the_question_with_its_best_answer_and_not_the_chat() -> None:
    solver = Answering(interrupts=1)
    before = signal.getsignal(signal.SIGINT)
    goes_on, out, errors = chat(solver, "First?", "Second?")
    assert goes_on == [True, True]
    assert solver.cancelled
    assert out.count("answer: 42") == 2
    assert "it was cancelled" in errors
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_chat() -> None:
    with pytest.raises(KeyboardInterrupt):
        chat(Answering(interrupts=2), "First?")


def test_lines_are_edited_and_remembered_in_a_file_of_the_users_own(tmp_path: Path) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    history = tmp_path / "data" / "chat_history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("What is 1+1\x7f2?\r")  # backspace
        keys.send_text("thrown away\x03")  # Ctrl-C
        keys.send_text("\x04")  # Ctrl-D
        assert list(_typed_lines(history)) == ["What is 1+2?"]
    assert list(FileHistory(str(history)).load_history_strings()) == ["What is 1+2?"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_without_a_terminal_every_line_is_a_question(pack: Pack) -> None:
    lines = b"Tom has 3 boxes of 8 pencils. How many pencils are there?\n\n/why\n\xff\xfe?\n/quit\nnot read\n"
    command = [sys.executable, "-m", "edge_tts", "chat", "--model", "smol-math", "--budget", "4"]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=120)
    out, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, errors
    assert out.count("answer: ") + out.count("no answer") + errors.count("error: ") == 3
    assert "of the vote" in out
    assert "not read" not in out
    assert "Traceback" not in errors


def test_a_strategy_that_is_none_is_said_before_anything_is_loaded() -> None:
    command = [sys.executable, "-m", "edge_tts", "chat", "--model", "nosuch", "--strategy", "poem"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown strategy 'poem'")
