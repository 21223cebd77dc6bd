"""A search whose candidates are programs: errors end them early, and what kills a worker costs one of them."""

from __future__ import annotations

import signal
import threading

import psutil
import pytest
from searching import drain, steps_taken

from edge_tts.bench.hostile import HOSTILE
from edge_tts.core import Sampling
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.interpreter import Interpreter, Limits
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_format import AskedProgram
from edge_tts.runtimes.scripted import ScriptedPolicy
from edge_tts.search.driver import Driver, Task
from edge_tts.search.ledger import Ledger
from edge_tts.search.strategy import Strategy

QUESTION = "Tom has 8 boxes of 12 pencils. He gives away 20. How many pencils are left?"
RIGHT = "pencils = 8 * 12\nanswer = pencils - 20\n```"
ENDLESS = "pencils = 8 * 12\nwhile True:\n    pencils = 1\nanswer = pencils\n```"
FAILING = "pencils = 8 * 12\nleft = pencil - 20\n" + "x = 1\n" * 40 + "answer = left\n```"


def search(interpreter: Interpreter, policy: ScriptedPolicy) -> Driver:
    asked = AskedProgram.of(ChatTemplate(None), (Message("user", QUESTION),), interpreter)
    return Driver(Task(QUESTION, asked, Sampling(max_tokens=600)), policy, None, Ledger(policy.info))


def test_an_error_ends_a_candidate_and_what_it_would_have_cost_is_not_spent() -> None:
    programs = iter([RIGHT, FAILING, RIGHT, FAILING])
    policy = ScriptedPolicy(lambda text, seed: next(programs))
    with Interpreter() as interpreter:
        driver = search(interpreter, policy)
        events, outcome = drain(driver.run(Strategy.parse("majority:n=4").proposer()))
    assert outcome.best is not None
    assert outcome.best.answer == "76"
    assert sum("NameError" in event.error for event in steps_taken(events)) == 2
    assert driver.ledger.usage.generated_tokens < 2 * len(RIGHT) + len(FAILING)
    assert driver.ledger.usage.interpreter_seconds > 0


def test_hostile_programs_among_the_candidates_do_not_change_the_answer() -> None:
    hostile = [program for program in HOSTILE if program.isascii()][:: len(HOSTILE) // 13]
    programs = iter([part for program in hostile for part in (RIGHT, f"pencils = 8 * 12\n{program}\n```")])
    n = 2 * len(hostile)
    with Interpreter() as interpreter:
        driver = search(interpreter, ScriptedPolicy(lambda text, seed: next(programs)))
        events, outcome = drain(driver.run(Strategy.parse(f"majority:n={n}").proposer()))
    assert n >= 24
    assert outcome.best is not None
    assert outcome.best.answer == "76"
    assert [trace.answer for trace in outcome.traces[::2]] == ["76"] * len(hostile)
    assert outcome.stop_reason == "complete"
    assert len({event.error.partition(":")[0] for event in steps_taken(events) if event.error}) > 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_worker_killed_in_the_middle_of_a_search_costs_one_candidate() -> None:
    programs = iter([RIGHT, ENDLESS, RIGHT, RIGHT])
    before = {child.pid for child in psutil.Process().children()}

    def kill() -> None:
        for child in psutil.Process().children():
            if child.pid not in before and child.name().startswith("monty"):
                child.kill()

    def write(text: str, seed: int) -> str:
        program = next(programs)
        if program == ENDLESS:
            threading.Timer(1.0, kill).start()
        return program

    with Interpreter(Limits(seconds=30)) as interpreter:
        driver = search(interpreter, ScriptedPolicy(write))
        events, outcome = drain(driver.run(Strategy.parse("majority:n=4").proposer()))
    assert [trace.answer for trace in outcome.traces] == ["76", None, "76", "76"]
    errors = [event.error for event in steps_taken(events) if event.error]
    assert errors == ["the interpreter ended while it ran this program"]
    assert outcome.support == 1
