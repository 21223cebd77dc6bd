"""What a policy is trained on in an epoch: solutions, redrawn problems, revisions of its own mistakes.

Solutions come from the data and, where they compute something else and are right, from the policy's own samples
(rejection sampling: Yuan et al. 2023; STaR, Zelikman et al. 2022). A revision follows one to four wrong attempts at
the same problem. The last attempt is one of those nearest to the right solution by edit distance, the others are
random (Snell et al. 2024, section 6.1 and appendix H).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path

from edge_tts.export.trace_rows import read_rows
from edge_tts.export.train.augment import redraw
from edge_tts.export.train.data import OPERATOR, Problem, completion, wrong_attempts
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT

MAX_SOLUTIONS = 4
"""Sampled solutions kept for one problem: with more, easy problems would outnumber the hard ones."""


@dataclass(frozen=True)
class Samples:
    """What a policy wrote for training problems, by problem id."""

    right: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Equation steps of right solutions, each computing something else."""
    wrong: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts of distinct wrong attempts, answer line included."""


def read_samples(paths: Iterable[Path], problems: Iterable[Problem]) -> Samples:
    """Read rows of the rollouts recipe, leaving out those of problems that are not in ``problems``.

    Raises InputError, with the line, for a row that cannot be used.
    """
    own = {problem.id: problem for problem in problems}
    right: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = defaultdict(dict)
    wrong: dict[str, dict[str, None]] = defaultdict(dict)
    for path in paths:
        for row in read_rows(path):
            problem = own.get(row.id)
            if problem is None or row.answer is None:
                continue
            *steps, _ = row.steps
            if not row.correct:
                wrong[problem.id][completion(steps, row.answer)] = None
            elif all(map(_equation, steps)) and steps[-1].endswith(f"={problem.answer}"):
                right[problem.id].setdefault(_computed(steps), tuple(steps))
    distinct = {
        id: tuple(steps for key, steps in found.items() if key != _computed(own[id].steps))[:MAX_SOLUTIONS]
        for id, found in right.items()
    }
    return Samples(
        {id: solutions for id, solutions in distinct.items() if solutions},
        {id: tuple(texts) for id, texts in wrong.items()},
    )


def epoch(
    problems: Sequence[Problem], samples: Samples, redrawn: float, revisions: float, rng: random.Random
) -> Iterator[tuple[Problem, list[str]]]:
    """Every problem once, in order, with the wrong attempts that come before its solution.

    A share ``revisions`` (in [0, 1]) become revisions. Of the others, a share ``redrawn`` get new numbers where that is
    possible. The rest take one of their solutions at random.
    """
    for problem in problems:
        if rng.random() < revisions:
            yield problem, attempts(problem, samples, rng.randint(1, ATTEMPTS_IN_CONTEXT), rng)
            continue
        if rng.random() < redrawn and (new := redraw(problem, rng)):
            yield new, []
            continue
        yield replace(problem, steps=rng.choice([problem.steps, *samples.right.get(problem.id, ())])), []


def attempts(problem: Problem, samples: Samples, count: int, rng: random.Random) -> list[str]:
    """Up to ``count`` wrong attempts, a near miss last; made from the solution where none was sampled."""
    known = samples.wrong.get(problem.id, ())
    if not known:
        return wrong_attempts(problem, count, rng)
    solution = completion(problem.steps, problem.answer)
    # One of the nearest few, so that epochs differ.
    nearest = sorted(known, key=lambda text: -SequenceMatcher(None, text, solution).ratio())[:3]
    last = rng.choice(nearest)
    others = [text for text in known if text != last]
    return [*rng.sample(others, min(count - 1, len(others))), last]


def _equation(step: str) -> bool:
    expression, equals, result = step.rpartition("=")
    return bool(equals and result and OPERATOR.search(expression))


def _computed(steps: Sequence[str]) -> tuple[str, ...]:
    """A solution's equations in sorted order; two solutions with the same ones count as equal."""
    return tuple(sorted(steps))
