"""The tokens that can be drawn, against arithmetic over the whole vocabulary in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_tts.errors import BackendError
from edge_tts.runtimes.shortlist import LOST, shortlist

VOCABULARY = 150_000


@pytest.fixture(scope="module")
def logits() -> NDArray[np.float32]:
    """From nearly certain to nearly uniform."""
    spreads = np.array([[12.0], [5.0], [2.0], [0.1]])
    return (spreads * np.random.default_rng(0).gumbel(size=(4, VOCABULARY))).astype(np.float32)


def test_totals_are_those_of_the_whole_vocabulary(logits: NDArray[np.float32]) -> None:
    whole = logits.astype(np.float64)
    peaks = whole.max(axis=1)
    expected = peaks + np.log(np.exp(whole - peaks[:, None]).sum(axis=1))
    for node, total in zip(shortlist(logits, 40), expected, strict=True):
        assert -LOST <= node.total - total <= 1e-4


def test_the_largest_are_kept_and_nothing_else(logits: NDArray[np.float32]) -> None:
    for row, node in zip(logits[2:], shortlist(logits[2:], 8), strict=True):
        assert node.ids.tolist() == sorted(np.argsort(row)[-8:].tolist())
        assert node.logits.tolist() == row[node.ids].tolist()
        assert node.logprob(int(row.argmax())) == pytest.approx(float(row.max()) - node.total)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_what_is_left_out_of_a_whole_vocabulary_has_next_to_no_probability(
    logits: NDArray[np.float32], temperature: float
) -> None:
    for row, node in zip(logits, shortlist(logits, 0, temperature), strict=True):
        weights = np.exp((row.astype(np.float64) - row.max()) / max(1.0, temperature))
        assert 1 - weights[node.ids].sum() / weights.sum() <= LOST
    assert len(shortlist(logits, 0, temperature)[3].ids) == VOCABULARY
    assert len(shortlist(logits, 0, temperature)[0].ids) < VOCABULARY / 10


def test_equal_logits_are_kept_together() -> None:
    (node,) = shortlist(np.array([[1.0, 2.0, 2.0, 2.0, 0.0]], np.float32), 2)
    assert node.ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(value: float) -> None:
    logits = np.full((1, 10), value, np.float32)
    with pytest.raises(BackendError, match="not finite"):
        shortlist(logits, 4)
