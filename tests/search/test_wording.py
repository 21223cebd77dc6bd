"""Words for confidences, reasons and costs."""

from __future__ import annotations

import pytest

from edge_tts.core import Usage
from edge_tts.search import wording


@pytest.mark.parametrize(
    ("confidence", "level", "words"),
    [
        (1.0, "sure", "about 99% sure"),
        (0.92, "sure", "about 92% sure"),
        (0.9, "sure", "about 90% sure"),
        (0.72, "likely", "likely, about 72%"),
        (0.6, "likely", "likely, about 60%"),
        (0.55, "unsure", "unsure, 55%"),
        (0.5, "unsure", "unsure, 50%"),
        (0.2, "guess", "a guess, 20%"),
        (0.0, "guess", "a guess, 0%"),
    ],
)
def test_a_confidence_in_words(confidence: float, level: str, words: str) -> None:
    assert (wording.level(confidence), wording.sureness(confidence)) == (level, words)


def test_reasons_are_clauses_and_unknown_ones_stay() -> None:
    assert wording.why_stopped("decided") == "the vote was settled"
    assert wording.why_stopped("deadline") == "the time was up"
    assert wording.why_stopped("budget: tokens") == "the budget of tokens was used up"
    assert wording.why_stopped("something new") == "something new"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (19.87, "19.9 s"), (59.96, "1 min"), (73.6, "1 min 14 s"), (3600, "60 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0"), (488, "488"), (12_345, "12,300"), (999_499, "999,000"), (1_234_567, "1.23 million")]
)
def test_amounts(count: float, words: str) -> None:
    assert wording.amount(count) == words


def test_a_cost_names_seconds_samples_and_tokens() -> None:
    usage = Usage(policy_tokens=400, verifier_tokens=88, seconds=19.87)
    assert wording.cost(usage) == "19.9 s, 488 tokens"
    assert wording.cost(usage, 1) == "19.9 s, 1 sample, 488 tokens"
    assert wording.cost(usage, 8) == "19.9 s, 8 samples, 488 tokens"
    assert wording.cost(usage, 8, "beam:n=16") == "19.9 s, 8 branches, 488 tokens"
