"""Which model answers, and the plan for it, before anything is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from edge_tts.errors import InputError
from edge_tts.files.atomic import Progress, silent
from edge_tts.packs.bare_model import default_model, find_model
from edge_tts.packs.pack import Pack, find_pack
from edge_tts.planning.planner import PROMPT_TOKENS, Plan, make_plan
from edge_tts.profiles.loader import Profile, detect, load
from edge_tts.reasoning.formats import USUAL_TOKENS

DEFAULT_GENERATIONS = 16
LEAST_VOTE = 4
"""Fewest samples whose agreement decides a vote."""
VOTE_TIMES = 3
"""How many times the predicted time of such a vote there is by default: predictions are for an idle machine, and a
search that is decided earlier ends earlier."""
LONG_S = 86400.0
PROMPT_OF_FORMAT = {"text": 60, "equations": 0}
"""Tokens of the instructions in a format's prompt; examples of programs take 200 more."""


def plan(
    pack: str | Pack | None = None,
    profile: str | Path | Profile | None = None,
    memory_mb: float | None = None,
    deadline_s: float | None = None,
    generations: int = DEFAULT_GENERATIONS,
    prompt_tokens: int | None = None,
    verifier: bool = True,
    model: str | Path | None = None,
    max_tokens: int | None = None,
) -> Plan:
    """What :class:`Solver` would load with these arguments, and what it would take; loads nothing.

    Raises PackError, InputError, ResourceError where the cap is too small.
    """
    device = profile_of(profile)
    found, _ = find(pack, model, device.memory_mb if memory_mb is None else memory_mb)
    return plan_for(found, device, memory_mb, deadline_s, generations, prompt_tokens, verifier, max_tokens)


def plan_for(
    pack: Pack,
    profile: Profile,
    memory_mb: float | None = None,
    deadline_s: float | None = None,
    generations: int = DEFAULT_GENERATIONS,
    prompt_tokens: int | None = None,
    verifier: bool = True,
    max_tokens: int | None = None,
) -> Plan:
    """The plan for a pack or model that was found. Raises InputError, ResourceError.

    Where ``deadline_s`` is None it is the profile's, or more where a small vote may take longer.
    """

    def planned(deadline: float | None, count: int, usual: int) -> Plan:
        scoring = pack.verifier if verifier else None
        length = max_tokens or pack.sampling.max_tokens
        prompt = (prompt_tokens or PROMPT_TOKENS) + PROMPT_OF_FORMAT[pack.format] + 200 * pack.writes_programs
        return make_plan(pack.policy, scoring, profile, memory_mb, deadline, count, prompt, length, min(length, usual))

    usual = USUAL_TOKENS[pack.reasoning]
    if deadline_s is not None:
        return planned(deadline_s, generations, usual)
    vote = planned(LONG_S, min(generations, LEAST_VOTE), USUAL_TOKENS[pack.format])
    return planned(max(profile.deadline_s, math.ceil(VOTE_TIMES * vote.seconds)), generations, usual)


def find(
    pack: str | Pack | None, model: str | Path | None, memory_mb: float, progress: Progress | None = None
) -> tuple[Pack, str]:
    """The pack or model to use, and why it is this one where the caller names none.

    Without ``progress`` nothing is fetched, save a model that is known by its hub id alone.
    """
    if isinstance(pack, Pack):
        return pack, ""
    if model is not None:
        if pack is not None:
            raise InputError(f"a pack brings its own model; give either pack={pack!r} or model={str(model)!r}")
        return find_model(model, progress or silent), ""
    return (find_pack(pack), "") if pack is not None else default_model(memory_mb, progress)


def profile_of(profile: str | Path | Profile | None) -> Profile:
    if profile is None:
        return detect()[0]
    return profile if isinstance(profile, Profile) else load(profile)
