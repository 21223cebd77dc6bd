"""Comparing two greedy texts: where they part, by how much, and what counts as a tie."""

from __future__ import annotations

from edge_tts.bench.parity import Written, compare, summary
from edge_tts.core import Trace
from edge_tts.questions.reading import Question

QUESTION = Question("q", "What is 12 * 8?", "96")
LOGITS = ({5: 9.0, 6: 2.0}, {6: 7.5, 8: 7.1}, {7: 9.0, 9: 1.0})


def test_equal_texts_have_no_gap_and_an_end_token_is_no_difference() -> None:
    row = compare(QUESTION, Trace((1, 2, 5, 6, 7, 0), answer="96"), 2, Written((5, 6, 7), "96.0", LOGITS))
    assert (row.tokens, row.same_tokens, row.gap) == (3, 3, None)
    assert row.same_answer
    assert row.right == (True, True)


def test_the_gap_is_that_of_the_two_tokens_where_the_texts_part() -> None:
    parted = compare(QUESTION, Trace((1, 5, 8, 7), answer="96"), 1, Written((5, 6, 7), None, LOGITS))
    assert (parted.tokens, parted.same_tokens, parted.gap) == (3, 1, 0.4)
    assert not parted.same_answer
    beyond = compare(QUESTION, Trace((1, 5, 99), answer=None), 1, Written((5, 6, 7), None, LOGITS))
    assert beyond.gap == 0.4  # at least: that token's logit was not among the largest
    assert beyond.same_answer


def test_texts_that_part_at_a_tie_do_not_count_against_equal_tokens() -> None:
    tie = ({5: 9.0, 6: 2.0}, {6: 7.5, 8: 7.4995}, {7: 9.0})
    rows = [
        compare(QUESTION, Trace((1, 5, 8, 7), answer="96"), 1, Written((5, 6, 7), "96", tie)),
        compare(QUESTION, Trace((1, 5, 6, 7), answer="96"), 1, Written((5, 6, 7), "96", tie)),
        compare(QUESTION, Trace((1, 5, 8, 7), answer="96"), 1, Written((5, 6, 7), "96", LOGITS)),
    ]
    told = summary(rows)
    assert (told["problems"], told["same_text"], told["parted_at_a_tie"]) == (3, 1, 1)
    assert told["largest_gap"] == 0.4
    assert told["same_tokens"] == (3 + 1) / (3 + 3)
