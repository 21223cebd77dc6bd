"""Records of votes, made again from the pools of a study that has no other records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_tts.bench.controller_replay import always, drawn, evaluated, problem_of
from edge_tts.bench.pool import Pool, read_pools
from edge_tts.bench.records import SAMPLES, Record, stored
from edge_tts.core import Usage
from edge_tts.search.controller import Controller
from edge_tts.search.selection import majority
from edge_tts.search.wave import traces


def pool_records(folder: Path, config: Mapping[str, Any]) -> Iterator[Record]:
    """What ``majority`` and ``adaptive`` choose from the pools of a study at its budgets, and what that costs.

    Seconds are not known, and a verifier's scores play no part. Raises InputError for a damaged file.
    """
    seeds, budgets = int(config.get("seeds", 1)), tuple(config.get("budgets", ()))
    for pool in read_pools(stored(folder / SAMPLES), lambda _, seed: 0 <= seed < seeds):
        for budget in budgets:
            if budget <= len(pool.samples):
                yield _record(pool, "majority", budget, always(budget), config)
                yield _record(pool, "adaptive", budget, Controller(budget), config)


def _record(pool: Pool, strategy: str, budget: int, controller: Controller, config: Mapping[str, Any]) -> Record:
    problem = problem_of(pool)
    candidates = drawn(problem, controller)
    choice = majority(traces(candidates))
    chosen = next((c for c in candidates if c.trace is choice.best), None)
    correct = chosen is not None and chosen.trace.answer in problem.right
    answer = pool.samples[chosen.id].answer if chosen else None
    tokens = evaluated(problem, candidates)
    flops = 2.0 * config.get("policy_parameters", 0) * tokens
    usage = Usage(tokens, sum(len(c.trace.tokens) for c in candidates), policy_flops=flops, generations=len(candidates))
    right = sum(sample.correct for sample in pool.samples[:budget])
    detail = {"right_samples": right, "mean_score": 0.0}
    key = (pool.id, strategy, budget, pool.seed)
    return Record(*key, answer, correct, "complete", usage, choice.support, detail=detail)
