"""Values that are checked where they are made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_tts.core import Sampling, StepEvent, StopReason, Trace
from edge_tts.errors import InputError


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperature": -1}, r"temperature must be 0 or at least 0.01; got -1"),
        ({"temperature": 1e-40}, r"at least 0.01; got 1e-40"),
        ({"temperature": math.nan}, "got nan"),
        ({"temperature": math.inf}, "got inf"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1; got 1.5"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1; got 0"),
        ({"min_p": 1}, "min_p must be at least 0 and below 1; got 1"),
        ({"min_p": math.nan}, "got nan"),
        ({"top_k": -1}, r"top_k must be at least 0 \(0 keeps all tokens\); got -1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"stop": ("",)}, "a stop text must not be empty"),
    ],
)
def test_sampling_refuses_values_out_of_range_and_names_them(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampling(**values)


def test_sampling_accepts_its_bounds() -> None:
    assert Sampling(temperature=0, top_k=0, top_p=1, min_p=0, max_tokens=1).max_tokens == 1
    assert Sampling(temperature=0.01, top_p=1e-9, min_p=0.999).temperature == 0.01


@pytest.mark.parametrize(
    ("step", "stop", "answer"),
    [
        ("#### 72", "end", "72"),
        ("####72", "end", "72"),
        ("  ####   72  ", "step", "72"),
        ("####", "end", None),
        ("#### 7", "length", None),
        ("#### 7", "cancelled", None),
        ("# 72", "step", None),
    ],
)
def test_an_answer_stands_behind_its_marker_whatever_space_there_is(
    step: str, stop: StopReason, answer: str | None
) -> None:
    event = StepEvent(0, step, (5,), 0.0, 0, 0, stop)
    assert Trace((1,)).extended(event, "#### ").answer == answer
