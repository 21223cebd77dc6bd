"""Equality of answers as a relation: reflexive, symmetric, grouped independently of order, never an exception."""

from __future__ import annotations

import time
from itertools import combinations
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_tts.answers.equivalence import equivalent, group

NUMBERS = st.sampled_from(
    [
        "50",
        "0.5",
        "5",
        "5.0",
        "5.0000001",
        "5.0000002",
        "-5",
        "1/2",
        "2 1/2",
        "2.5",
        "1e3",
        "1,000",
        "0.0000001",
        "3:30",
    ]
)
UNITS = st.sampled_from(["", "%", " percent", " kg", " dollars", " pm", "°", " x"])
WORDS = st.sampled_from(
    ["B", "b", "(B)", "x", "X", "yes", "Yes.", "east", "seat", "½", "\\frac{1}{2}", "5 and 50", "x+1"]
)
ANSWERS = st.one_of(
    st.builds("{}{}{}".format, st.sampled_from(["", "$", "£", "USD "]), NUMBERS, UNITS),
    st.lists(NUMBERS, min_size=2, max_size=3).map(", ".join),
    WORDS,
    st.text(max_size=8),
)
PIECES = st.sampled_from(
    ["1", ",", ".", " ", "/", "(", ")", "{", "}", "\\frac", "^", "-", "$", "%", "a", "and ", "e", "½"]
)


@settings(deadline=None)
@given(st.text(), st.text())
@example("\ud800", "\ud800 ")
@example("{" * 3000, "}" * 3000)
def test_any_text_equals_itself_and_comparing_is_symmetric(a: str, b: str) -> None:
    assert equivalent(a, a, 0)
    assert equivalent(a, b, 0) == equivalent(b, a, 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANSWERS, max_size=12), st.randoms(use_true_random=False))
@example(["50%", "50", "0.5"], Random(1))
@example(["B", "b", "(B)"], Random(1))
def test_groups_are_what_equal_pairs_link_in_any_order(answers: list[str], random: Random) -> None:
    ids = group(answers, 0)
    assert list(dict.fromkeys(ids)) == list(range(len(set(ids)))), "numbered by first appearance"
    linked = list(range(len(answers)))
    for i, j in combinations(range(len(answers)), 2):
        if equivalent(answers[i], answers[j], 0) and linked[i] != linked[j]:
            linked = [linked[i] if root == linked[j] else root for root in linked]
    assert {(ids[i] == ids[j]) == (linked[i] == linked[j]) for i, j in combinations(range(len(ids)), 2)} <= {True}
    order = list(range(len(answers)))
    random.shuffle(order)
    again = group([answers[i] for i in order], 0)
    assert len(set(zip(again, (ids[i] for i in order), strict=True))) == len(set(ids))


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, max_size=60), st.integers(1, 60))
def test_time_is_bounded_on_text_made_of_the_signs_that_are_looked_for(pieces: list[str], times: int) -> None:
    text = "".join(pieces) * times
    began = time.process_time()
    equivalent(text, text + "1", 0)
    assert time.process_time() - began < 1
