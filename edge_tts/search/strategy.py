"""Naming a strategy and its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

from edge_tts.errors import InputError
from edge_tts.search.controller import Controller
from edge_tts.search.particles import Particles
from edge_tts.search.revise import Revise
from edge_tts.search.sampling import BestOfN, Greedy, Majority, Weighted
from edge_tts.search.selection import Aggregate
from edge_tts.search.tree import TreeSearch
from edge_tts.search.wave import Proposer

Kind = Literal[
    "greedy", "majority", "adaptive", "best-of-n", "weighted", "beam", "lookahead", "dvts", "particles", "revise"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_N = 1024

_SETTINGS: dict[Kind, dict[str, str]] = {
    "greedy": {},
    "majority": {"n": "n"},
    "adaptive": {"n": "n"},
    "best-of-n": {"n": "n"},
    "weighted": {"n": "n"},
    "beam": {"n": "n", "m": "beam_width"},
    "lookahead": {"n": "n", "m": "beam_width", "k": "lookahead"},
    "dvts": {"n": "n", "m": "beam_width"},
    "particles": {"n": "n"},
    "revise": {"n": "n", "s": "sequential"},
}
"""Each kind's settings as they are written, and the fields they set."""


@dataclass(frozen=True)
class Strategy:
    """A kind of search and its size; fields that a kind does not use keep their defaults.

    Raises InputError for an unknown kind or a size out of range.
    """

    kind: Kind
    n: int = 1
    """Full traces, or candidates of a step; 1 to 1024. Always 1 for greedy."""
    beam_width: int = 1
    """Expansions of each kept trace, M in the paper; 1 to ``n``. For beam, lookahead and dvts."""
    lookahead: int = 0
    """Greedy steps beyond each candidate, at least 1. For lookahead."""
    sequential: int = 1
    """Attempts in a chain of revisions, a divisor of ``n``; n / sequential chains run in parallel."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown strategy {self.kind!r}; choose one of {', '.join(KINDS)}")
        used = _SETTINGS[self.kind].values()
        most_n = 1 if self.kind == "greedy" else MAX_N
        _check(self.kind, "n", self.n, 1, most_n)
        if "beam_width" in used:
            _check(self.kind, "m", self.beam_width, 1, self.n)
        if "lookahead" in used:
            _check(self.kind, "k", self.lookahead, 1, MAX_N)
        if "sequential" in used:
            _check(self.kind, "s", self.sequential, 1, self.n)
            if self.n % self.sequential:
                raise InputError(
                    f"revise with n={self.n} cannot have chains of s={self.sequential}; choose an s that divides n"
                )

    @classmethod
    def parse(cls, text: str, generations: int = 16) -> Self:
        """Read "kind" or "kind:setting=number,...", such as "beam:n=16,m=4".

        Defaults: the n that takes ``generations``, m=4, k=1, s=4, or what fits a smaller n. Raises
        InputError.
        """
        name, _, rest = text.strip().lower().partition(":")
        kind = next((kind for kind in KINDS if kind == name.strip()), None)
        if kind is None:
            raise InputError(f"unknown strategy {name.strip()[:40]!r}; choose one of {', '.join(KINDS)}")
        numbers = _numbers(kind, rest)
        rollouts = numbers.get("k", 1) if kind == "lookahead" else 0
        n = numbers.get("n", 1 if kind == "greedy" else min(MAX_N, max(1, generations // (rollouts + 1))))
        defaults = {"n": n, "m": min(4, n), "k": 1, "s": math.gcd(4, n)}
        sizes = {field: numbers.get(key, defaults[key]) for key, field in _SETTINGS[kind].items()}
        return cls(kind, **sizes)

    def __str__(self) -> str:
        settings = ",".join(f"{key}={getattr(self, field)}" for key, field in _SETTINGS[self.kind].items())
        return f"{self.kind}:{settings}" if settings else self.kind

    @property
    def generations(self) -> int:
        """What it takes from a budget in generations: n, or n (k + 1) with lookahead."""
        return self.n * (self.lookahead + 1)

    @property
    def starts_anew(self) -> bool:
        """Whether samples that were drawn before do not count among its ``n``."""
        return self.kind in ("greedy", "beam", "lookahead", "dvts", "particles")

    @property
    def is_vote(self) -> bool:
        """Whether independent samples vote: then a controller can say when they are enough."""
        return self.kind in ("majority", "adaptive", "weighted")

    @property
    def needs_verifier(self) -> bool:
        """Whether it cannot run without a verifier."""
        return self.kind in ("best-of-n", "weighted", "beam", "lookahead", "dvts", "particles")

    @property
    def uses_verifier(self) -> bool:
        """Whether scores make a difference to it."""
        return self.needs_verifier or self.kind == "revise"

    def proposer(self, how: Aggregate = "last") -> Proposer:
        """A search of this kind and size; ``how`` makes one number of a trace's step scores."""
        n, m = self.n, self.beam_width
        match self.kind:
            case "greedy":
                return Greedy()
            case "majority":
                return Majority(n)
            case "adaptive":
                return Controller(n)
            case "best-of-n":
                return BestOfN(n, how)
            case "weighted":
                return Weighted(n, how)
            case "beam" | "lookahead" | "dvts":
                return TreeSearch(n, m, self.lookahead, self.kind == "dvts", how)
            case "particles":
                return Particles(n, how)
            case "revise":
                return Revise(self.sequential, n // self.sequential, how)


def _numbers(kind: Kind, rest: str) -> dict[str, int]:
    """The settings written after the colon."""
    allowed = _SETTINGS[kind]
    numbers: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in allowed or key in numbers:
            wanted = f"takes {', '.join(allowed)}, each once" if allowed else "takes no settings"
            raise InputError(f"strategy {kind} cannot have {part[:40]!r}; it {wanted}")
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise InputError(f"strategy {kind} has {key}={value[:40]!r}; give a whole number, such as {key}=4")
        numbers[key] = int(value)
    return numbers


def _check(kind: Kind, key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"strategy {kind} has {key}={value}; choose {key} from {least} to {most}")
