"""Pools of samples made up for tests of what is fitted on studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_tts.bench.pool import Part, Pool, Sample


def pool(number: int, chance: float, draw: np.random.Generator, size: int = 16) -> Pool:
    """``size`` samples, each right with ``chance``; wrong ones spread over four answers, one in eight has none."""
    samples = []
    for _ in range(size):
        right = bool(draw.random() < chance)
        answer = "1" if right else None if draw.random() < 0.125 else str(2 + int(draw.integers(4)))
        tokens = (7, *(int(token) for token in draw.integers(1000, size=draw.integers(30, 90))))
        part = Part("x", len(tokens), -len(tokens) * (0.1 + 0.1 * draw.random()), 0)
        samples.append(Sample(tokens, (part,), "end", ("x",), answer, right))
    return Pool(f"p{number}", 0, (1,) * 90, tuple(samples), None, prefill=60)


def written(folder: Path, pools: Sequence[Pool]) -> Path:
    """A study's folder with ``pools``."""
    folder.mkdir()
    (folder / "samples.jsonl").write_text("".join(json.dumps(one.to_dict()) + "\n" for one in pools))
    return folder
