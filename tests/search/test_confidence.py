"""Confidence in the leading answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_tts.core import Trace
from edge_tts.errors import InputError
from edge_tts.search.confidence import UNCALIBRATED, Calibration, Standing
from edge_tts.search.wave import Candidate


def candidate(answer: str | None, tokens: int = 10, logprob: float = -1.0, scores: tuple[float, ...] = ()) -> Candidate:
    trace = Trace(tuple(range(4 + tokens)), ("step",), True, answer, scores, logprob, prompt_tokens=4)
    return Candidate(0, 0, trace, 4, 100)


def test_standing_counts_votes_failures_and_the_rest() -> None:
    unfinished = Candidate(9, 9, Trace((1, 2)), 1, 50)
    pool = [candidate("76"), candidate("76.0", tokens=5), candidate("74"), candidate(None), unfinished]
    standing = Standing.of(pool, "76")
    assert (standing.samples, standing.votes, standing.second, standing.runner_up) == (4, 2, 1, 1)
    assert standing.logprob == pytest.approx((-1 / 10 - 1 / 5) / 2)
    assert standing.score is None


def test_standing_has_a_score_only_where_every_agreeing_trace_was_scored() -> None:
    assert Standing.of([candidate("1", scores=(0.2, 0.8)), candidate("1", scores=(0.4,))], "1").score == pytest.approx(
        0.6
    )
    assert Standing.of([candidate("1", scores=(0.8,)), candidate("1")], "1").score is None
    in_words = replace(candidate("1"), way=1)
    assert Standing.of([candidate("1", scores=(0.8,)), in_words], "1").score == 0.8
    assert Standing.of([in_words], "1").score is None


def test_more_agreement_is_more_confidence_and_none_is_none() -> None:
    sure = [UNCALIBRATED.confidence(Standing(4, votes)) for votes in (1, 2, 3, 4)]
    assert sure == sorted(sure)
    assert 0 < sure[0] < sure[-1] < 1
    assert UNCALIBRATED.confidence(Standing(16, 16)) > sure[-1]
    assert UNCALIBRATED.confidence(Standing(1, 1)) == 0.5
    assert UNCALIBRATED.confidence(Standing(2, 1, other_samples=2, other_votes=2)) == 0.6
    assert UNCALIBRATED.confidence(Standing(4)) == UNCALIBRATED.confidence(Standing.of([candidate(None)], None)) == 0


def test_a_fit_takes_the_place_of_the_posterior() -> None:
    fit = Calibration({"bias": -1.0, "vote": 2.0}, {"bias": 0.0})
    assert fit.confidence(Standing(4, 4)) > 0.9 > 0.3 > fit.confidence(Standing(4, 2, 2))
    assert fit.confidence(Standing(4)) == 0
    assert fit.prospect(Standing(4)) == 0.5
    assert UNCALIBRATED.prospect(Standing(4)) is None


def test_another_way_of_asking_that_agrees_raises_confidence() -> None:
    fit = Calibration({"vote": 1.0, "agreement": 1.0})
    agreeing, alone, differing = (
        Standing(4, 2, 1, other_samples=n, other_votes=v) for n, v in ((2, 2), (0, 0), (2, 0))
    )
    assert fit.confidence(agreeing) > fit.confidence(alone) > fit.confidence(differing)


def test_a_weight_of_an_unknown_feature_is_refused() -> None:
    with pytest.raises(InputError, match=r"'votes'.*none of bias"):
        Calibration({"votes": 1.0})


def test_a_fit_that_weighs_scores_holds_where_scores_are_made() -> None:
    with_scores, without = Calibration({"bias": 1.0, "score": 1.0}), Calibration({"bias": 1.0, "vote": 1.0})
    assert with_scores.where(scored=True) is with_scores
    assert with_scores.where(scored=False) == Calibration()
    assert without.where(scored=False) is without
