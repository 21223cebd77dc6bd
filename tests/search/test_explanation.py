"""An explanation is asked for after the search, charged, and never cut within a sentence."""

from __future__ import annotations

import pytest
from searching import drain

from edge_tts.core import Budget, Trace
from edge_tts.events import Event, Explained
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.messages import Message
from edge_tts.runtimes.scripted import ScriptedPolicy
from edge_tts.search.explanation import ask, explain, whole_sentences
from edge_tts.search.ledger import Ledger

SAID = "There are 96 pencils. He keeps 76 of them."


def explained(policy: ScriptedPolicy, ledger: Ledger) -> tuple[list[Event], str]:
    events, text = drain(explain(policy, policy.tokenize("Explain."), ledger))  # type: ignore[arg-type]
    return events, str(text)


def test_it_streams_and_is_charged() -> None:
    policy = ScriptedPolicy(lambda text, seed: SAID)
    ledger = Ledger(policy.info)
    events, text = explained(policy, ledger)
    assert text == SAID
    assert "".join(event.text for event in events if isinstance(event, Explained)) == SAID
    assert ledger.usage.generated_tokens >= len(SAID)


def test_nothing_is_said_once_the_budget_is_spent() -> None:
    policy = ScriptedPolicy(lambda text, seed: SAID)
    ledger = Ledger(policy.info, budget=Budget(tokens=1))
    ledger.charge_verifier(0, 0.0, 0)
    ledger._charge_policy(5, 5)
    assert explained(policy, ledger) == ([], "")


def test_the_question_the_steps_and_the_answer_are_told() -> None:
    policy = ScriptedPolicy(lambda text, seed: "")
    trace = Trace((), ("pencils = 8 * 12  # 96", "answer = pencils - 20  # 76"), True, "76")
    tokens = ask(ChatTemplate(None), policy, (Message("user", "How many {are} left?"),), trace)
    text = "".join(map(chr, tokens))
    for part in ("How many {are} left?", "pencils = 8 * 12  # 96", "Answer: 76"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "is_cut", "expected"),
    [
        ("One. Two is cu", True, "One."),
        ("One.\n\nTwo.", False, "One. Two."),
        ("No end at all", True, "No end at all"),
        ("It is 3.5 in all. And th", True, "It is 3.5 in all."),
    ],
)
def test_a_sentence_that_was_cut_is_left_out(text: str, is_cut: bool, expected: str) -> None:
    assert whole_sentences(text, is_cut) == expected
