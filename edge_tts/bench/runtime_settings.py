"""How a study opens its runtimes: here, in processes that measure one thing, and on the nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from edge_tts.files.atomic import Progress, silent
from edge_tts.packs.pack import find_pack
from edge_tts.profiles.loader import Profile
from edge_tts.solver import Solver


@dataclass(frozen=True)
class RuntimeSettings:
    """How to open a runtime for a study, here or on a node."""

    pack: str | None
    """Name or folder; None is the default."""
    profile: Profile
    """Of the driver, so that every node plans alike."""
    memory_mb: float | None
    generations: int
    """That share a batch."""
    prompt_tokens: int
    """Of the longest problem."""
    calculator: bool
    verifier: bool
    model: str | None = None
    """A GGUF, catalogue name or hub id instead of a pack."""

    def open(self, progress: Progress = silent) -> Solver:
        """A runtime without a deadline. Raises what :class:`Solver` does."""
        solver = Solver(
            self.pack,
            self.profile,
            self.memory_mb,
            generations=self.generations,
            prompt_tokens=self.prompt_tokens,
            calculator=self.calculator,
            verifier=self.verifier,
            progress=progress,
            model=self.model,
        )
        solver.deadline_s = None
        return solver

    def on_nodes(self, cores: int) -> Self:
        """The same for a process with another working directory and ``cores`` of its own. Raises PackError."""
        folder = Path(self.pack).absolute() if self.pack else None
        pack = str(folder) if folder and find_pack(self.pack).folder == folder else self.pack
        file = Path(self.model).absolute() if self.model and Path(self.model).exists() else None
        model = str(file) if file else self.model
        return replace(self, pack=pack, model=model, profile=replace(self.profile, threads=cores))
