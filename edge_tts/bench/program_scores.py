"""Scores the programs of a study's samples, as the runtime does that votes on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edge_tts.bench.controller_replay import Problem
from edge_tts.errors import InputError
from edge_tts.export.train.heads import FOLDS, fold_of
from edge_tts.runtimes.program_verifier import FORMAT, ProgramVerifier, SignWeights


def scored(
    problems: Sequence[Problem], questions: Mapping[str, str], fit: Mapping[str, Any], held_out: bool
) -> list[Problem]:
    """``problems`` with the scores of their programs; ``questions`` are their texts by id.

    ``fit`` is the program verifier's (:mod:`edge_tts.export.train.fit_signs`). ``held_out``: each problem is scored by
    the fit that it had no part in; for problems that the whole fit was made on. Raises InputError where a problem's
    text is missing.
    """
    missing = [problem.id for problem in problems if problem.id not in questions]
    if missing:
        raise InputError(f"--data lacks {len(missing)} problems of the study, such as {missing[0]}; give its own file")
    contents = [{**fit["evidence"]["folds"][fold], "format": FORMAT} for fold in range(FOLDS)] if held_out else [fit]
    verifiers = [ProgramVerifier(SignWeights.parse(content)) for content in contents]
    return [
        _scored(problem, questions[problem.id], verifiers[fold_of(problem.id) if held_out else 0])
        for problem in problems
    ]


def _scored(problem: Problem, question: str, verifier: ProgramVerifier) -> Problem:
    found = verifier.score(question, [candidate.trace.steps for candidate in problem.usual])
    usual = (
        replace(candidate, trace=replace(candidate.trace, scores=one.scores))
        for candidate, one in zip(problem.usual, found, strict=True)
    )
    return replace(problem, usual=tuple(usual), seen={})
