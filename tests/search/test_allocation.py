"""The strategy table: bins, lookup, and damage."""

from __future__ import annotations

from typing import Any

import pytest

from edge_tts.errors import PackError
from edge_tts.search.allocation import StrategyTable

TABLE: dict[str, Any] = {
    "probe": 4,
    "edges": [0.8, 0.6, 0.4, 0.2],
    "budgets": [8, 64],
    "cells": [
        ["adaptive", "majority"],
        ["weighted", "weighted"],
        ["beam:m=2", "beam"],
        ["dvts", "revise"],
        ["beam", "lookahead"],
    ],
}


def test_scores_fall_into_bins_from_easy_to_hard() -> None:
    table = StrategyTable.parse(TABLE)
    assert [table.bin(score) for score in (1.0, 0.8, 0.79, 0.5, 0.2, 0.0)] == [0, 0, 1, 2, 3, 4]


def test_the_nearest_budget_is_taken_and_the_strategy_sized() -> None:
    table = StrategyTable.parse(TABLE)
    strategy, reason = table.choose(2, 12)
    assert str(strategy) == "beam:n=8,m=2"  # the estimate took 4 of the 12
    assert "difficulty 3 of 5" in reason
    assert "8 generations" in reason
    assert str(table.choose(0, 100)[0]) == "majority:n=100"
    assert str(table.choose(4, 64)[0]) == "lookahead:n=30,m=4,k=1"


def test_settings_that_few_generations_do_not_allow_are_left_out() -> None:
    table = StrategyTable.parse({**TABLE, "cells": [["revise:s=4", "beam:m=16"]] * 5})
    assert str(table.choose(0, 5)[0]) == "revise:n=5,s=1"
    assert str(table.choose(0, 8)[0]) == "revise:n=8,s=4"
    assert str(table.choose(0, 64)[0]) == "beam:n=60,m=16"
    assert str(table.choose(0, 30)[0]) == "beam:n=26,m=16"
    assert str(table.choose(0, 24)[0]) == "beam:n=20,m=16"


def test_a_table_of_votes_alone_is_told_from_one_that_names_searches() -> None:
    assert not StrategyTable.parse(TABLE).only_votes
    votes = [["weighted", "majority:n=8"]] * 4 + [["adaptive", "weighted"]]
    assert StrategyTable.parse({**TABLE, "cells": votes}).only_votes


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [0.1, 0.2, 0.3, 0.4]},
        {"edges": [0.5]},
        {"cells": [["majority", "majority"]] * 4},
        {"cells": [["majority"]] * 5},
        {"cells": [["magic", "majority"]] * 5},
        {"cells": [[3, "majority"]] * 5},
        {"probe": 0},
        {"budgets": []},
        {"probe": None},
    ],
)
def test_a_damaged_table_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PackError, match="strategy table"):
        StrategyTable.parse({**TABLE, **change})


def test_a_table_with_a_part_missing_is_refused() -> None:
    with pytest.raises(PackError, match="cells"):
        StrategyTable.parse({k: v for k, v in TABLE.items() if k != "cells"})
