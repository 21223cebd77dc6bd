"""What the samples of a call leave for those that begin later."""

from __future__ import annotations

import numpy as np
import pytest

from edge_tts.runtimes.token_tree import LARGEST, LONGEST, Node, TokenTree


def node(candidates: int = 3) -> Node:
    return Node(np.arange(candidates) * 10, np.linspace(-1, 1, candidates).astype(np.float32), total=2.0)


def test_a_prefix_is_found_again() -> None:
    tree = TokenTree(samples=2)
    first, second = node(), node()
    assert tree.keep(first, tree.roots, (1, 2)) is first
    assert tree.keep(second, tree.roots, (1, 2)) is first
    assert tree.keep(second, first.branches, 20) is second
    assert tree.roots[1, 2].branches[20] is second


def test_nothing_is_added_once_all_have_begun_or_beyond_the_tree() -> None:
    tree = TokenTree(samples=1)
    kept = tree.keep(node(), tree.roots, (1, 2))
    assert kept
    tree.unbegun -= 1
    assert tree.keep(node(), kept.branches, 20) is None
    assert tree.keep(node(), tree.roots, (1, 2)) is kept
    assert tree.keep(node(), None, 20) is None


def test_its_size_is_bounded() -> None:
    tree = TokenTree(samples=9)
    assert tree.keep(node(LONGEST + 1), tree.roots, (1, 2)) is None
    kept = [tree.keep(node(), tree.roots, i) for i in range(LARGEST + 5)]
    assert kept.index(None) == LARGEST
    assert len(tree.roots) == LARGEST


def test_a_candidate_has_its_log_probability() -> None:
    assert node().logprob(20) == pytest.approx(1.0 - 2.0)
