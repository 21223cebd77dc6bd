from __future__ import annotations

import random
from dataclasses import replace

import pytest
from searching import finished

from edge_tts.core import Trace
from edge_tts.search.selection import (
    Aggregate,
    aggregate,
    best_scored,
    decided,
    hierarchical,
    majority,
    shares,
    voters,
    weighted,
)


def test_a_tie_goes_to_the_answer_of_the_likeliest_trace() -> None:
    unlikely, likely = (replace(finished(answer), logprob=logprob) for answer, logprob in (("1", -9.0), ("2", -3.0)))
    assert majority([unlikely, likely]).best is likely
    assert majority([unlikely, likely, unlikely]).best is unlikely


@pytest.mark.parametrize(("how", "value"), [("last", 0.5), ("min", 0.2), ("product", 0.08), ("mean", 0.5)])
def test_aggregate(how: Aggregate, value: float) -> None:
    assert aggregate([0.8, 0.2, 0.5], how) == pytest.approx(value)
    assert aggregate([], how) == 0.0


def test_only_finished_answers_vote() -> None:
    unfinished = Trace((1,), ("1+1=2",))
    no_answer = Trace((1,), ("2",), finished=True)
    answered = finished("2")
    assert voters([unfinished, no_answer, answered]) == [answered]
    assert majority([unfinished, no_answer]).best is None
    assert best_scored([unfinished], "last").best is None


def test_majority_merges_equivalent_answers() -> None:
    choice = majority([finished("3"), finished("4"), finished("$4.00"), finished("5")])
    assert choice.best is not None
    assert (choice.best.answer, choice.support) == ("4", 0.5)


def test_best_scored_and_weighted_disagree_where_they_should() -> None:
    traces = [finished("1", 0.9), finished("2", 0.6), finished("2", 0.7), finished("3", 0.2)]
    best, heaviest = best_scored(traces, "last"), weighted(traces, "last")
    assert best.best is traces[0]
    assert (best.score, best.support) == (0.9, pytest.approx(0.9 / 2.4))
    assert heaviest.best is traces[2]
    assert (heaviest.score, heaviest.support) == (0.7, pytest.approx(1.3 / 2.4))


def test_unscored_traces_weigh_the_mean_and_cannot_be_best() -> None:
    traces = [finished("1", 0.6), finished("2"), finished("2")]
    choice = weighted(traces, "last")
    assert choice.best is traces[1]
    assert choice.support == pytest.approx(2 / 3)
    assert best_scored(traces, "last").best is traces[0]


def test_without_scores_both_are_votes() -> None:
    traces = [finished("1"), finished("2"), finished("2")]
    assert weighted(traces, "last") == best_scored(traces, "last") == majority(traces)
    assert majority(traces).best is traces[1]


def test_all_zero_scores_still_choose() -> None:
    choice = weighted([finished("1", 0.0), finished("2", 0.0)], "last")
    assert choice.best is not None
    assert (choice.best.answer, choice.support) == ("1", 0.5)


def test_hierarchical_selects_inside_chains_first() -> None:
    # Pooled, "1" has the largest sum (1.5); inside each of the other chains "2" wins.
    chains = [
        [finished("1", 0.5), finished("1", 0.5), finished("1", 0.5)],
        [finished("2", 0.4), finished("3", 0.1)],
        [finished("3", 0.1), finished("2", 0.4)],
    ]
    assert weighted([t for chain in chains for t in chain], "last").best is chains[0][0]
    choice = hierarchical(chains, "last")
    assert choice.best is chains[1][0]
    assert choice.support == pytest.approx(0.8 / 1.3)


def test_hierarchical_votes_without_scores() -> None:
    chains = [[finished("1"), finished("2"), finished("2")], [finished("2")], [finished("1")], []]
    choice = hierarchical(chains, "last")
    assert choice.best is not None
    assert (choice.best.answer, choice.support) == ("2", pytest.approx(2 / 3))


def test_decided_is_the_beta_tail() -> None:
    assert decided(0, 0) == 0.5
    assert decided(3, 0) == pytest.approx(15 / 16)
    assert decided(4, 0) == pytest.approx(31 / 32)
    assert decided(7, 7) == 0.5
    assert decided(900, 100) == pytest.approx(1.0)
    rng = random.Random(1)
    draws = [rng.betavariate(6 + 1, 3 + 1) > 0.5 for _ in range(10_000)]
    assert decided(6, 3) == pytest.approx(sum(draws) / len(draws), abs=0.02)


def test_shares_of_a_vote_are_named_as_the_chosen_trace_has_it() -> None:
    traces = [finished("0.5"), finished("3"), finished("1/2"), finished("1/2"), Trace((1,), ("2",), finished=True)]
    assert shares(traces, traces[2], None) == (("1/2", 0.75), ("3", 0.25))
    assert shares(traces, None, None) == (("0.5", 0.75), ("3", 0.25))
    assert shares([], None, None) == ()
    assert shares([replace(traces[0], weight=0.5), traces[1]], None, None) == (("3", 0.6667), ("0.5", 0.3333))
    assert shares([replace(traces[0], weight=0.0)], None, None) == ()
    scored = [replace(t, scores=(score,)) for t, score in zip(traces[:4], (0.1, 0.9, 0.1, 0.1), strict=True)]
    assert shares(scored, None, "last") == (("3", 0.75), ("0.5", 0.25))
    assert shares([replace(t, scores=(0.0,)) for t in traces], None, "last") == shares(traces, None, None)
