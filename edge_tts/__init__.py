"""edge-reasoning-runtime: an on-device reasoning runtime.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not (Path(__file__).parent / "runtimes").is_dir():
    # In a checkout three subpackages lie beside this one. So Python finds them where it is started there.
    __path__.append(str(Path(__file__).parent.parent))

from edge_tts.runtimes.privacy import disable_telemetry

if TYPE_CHECKING:
    from edge_tts.core import Budget, Sampling, Usage
    from edge_tts.errors import BackendError, EdgeError, InputError, PackError, ResourceError
    from edge_tts.escalation.solver import EscalatingSolver
    from edge_tts.events import (
        BestSoFar,
        CandidateScored,
        Decided,
        Difficulty,
        DifficultyEstimated,
        Done,
        Escalated,
        Event,
        Explained,
        Result,
        StepTaken,
        StrategyChosen,
    )
    from edge_tts.packs.planned import plan
    from edge_tts.planning.planner import Plan
    from edge_tts.solver import Solver

__all__ = [
    "BackendError",
    "BestSoFar",
    "Budget",
    "CandidateScored",
    "Decided",
    "Difficulty",
    "DifficultyEstimated",
    "Done",
    "EdgeError",
    "Escalated",
    "EscalatingSolver",
    "Event",
    "Explained",
    "InputError",
    "PackError",
    "Plan",
    "ResourceError",
    "Result",
    "Sampling",
    "Solver",
    "StepTaken",
    "StrategyChosen",
    "Usage",
    "plan",
]
disable_telemetry()  # before anything can import the libraries that it is about
_MODULES = {
    "Budget": "core",
    "Sampling": "core",
    "Usage": "core",
    "Solver": "solver",
    "EscalatingSolver": "escalation.solver",
    "plan": "packs.planned",
    "Plan": "planning.planner",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _MODULES.get(name) or ("errors" if name.endswith("Error") else "events")
    value = globals()[name] = getattr(importlib.import_module(f"edge_tts.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
