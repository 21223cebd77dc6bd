"""From logits over a whole vocabulary to the few tokens that can be drawn, and their log-probabilities.

An exponential of every logit, and a sort, would cost a tenth of a decoding step where a vocabulary has 150
thousand tokens. Nearly all of those are so improbable that leaving them out changes nothing one could measure.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_tts.errors import BackendError
from edge_tts.runtimes.token_tree import Node

LOST = 1e-3
"""Most probability that the tokens left out may have together; log-probabilities are too high by this at most."""


def shortlist(logits: NDArray[np.float32], top_k: int, temperature: float = 1.0) -> list[Node]:
    """For each row of ``logits`` (rows, vocabulary), the tokens to draw from and the log of the sum of all exp(logit).

    The tokens are the ``top_k`` largest (0: all), and those equal to the last of them, without any so far below the
    largest that all of these together have a probability below ``LOST``, at ``temperature`` or at 1 if that is
    higher. Raises BackendError for logits that are not finite.
    """
    vocabulary = logits.shape[1]
    # exp(-depth) for every token of the vocabulary adds up to LOST of the largest one's share.
    depth = math.log(vocabulary / LOST)
    above = np.empty(vocabulary, bool)
    nodes = []
    for row, peak in zip(logits, logits.max(axis=1), strict=True):
        ids = np.flatnonzero(np.greater(row, peak - depth * max(1.0, temperature), out=above))
        if not len(ids):
            raise BackendError(f"the model's logits are not finite (largest: {peak}); the model file may be damaged")
        values = row[ids]
        total = float(peak) + math.log(float(np.exp(values - peak).sum()))
        if 0 < top_k < len(ids):
            kept = values >= np.partition(values, -top_k)[-top_k]
            ids, values = ids[kept], values[kept]
        nodes.append(Node(ids, values, total))
    return nodes
