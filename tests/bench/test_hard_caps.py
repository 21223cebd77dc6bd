"""Solves in control groups; skipped where this process may not make one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from questions import HARD

from edge_tts.bench import hard_caps
from edge_tts.errors import InputError
from edge_tts.packs.pack import Pack


@pytest.fixture(autouse=True)
def groups() -> None:
    try:
        with hard_caps.limited(64):
            pass
    except InputError as error:
        pytest.skip(str(error))


def test_a_cap_that_is_planned_for_is_kept_and_one_that_is_not_kills(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("--pack", str(pack.folder))
    kept = hard_caps.solve(model, 300, "majority", 16, HARD)
    assert kept["outcome"] in ("answered", "unanswered")
    assert 100 < kept["peak_mb"] <= 300
    assert hard_caps.solve(model, 90, "majority", 16, HARD)["outcome"] == "refused"
    whole = hard_caps.limited

    @contextmanager
    def half(cap_mb: float) -> Iterator[Path]:
        with whole(cap_mb / 2) as group:
            yield group

    monkeypatch.setattr(hard_caps, "limited", half)
    assert hard_caps.solve(model, 600, "majority", 64, HARD)["outcome"] == "killed"
