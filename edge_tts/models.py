"""The models a plan asks for, loaded."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from edge_tts.core import EngineConfig, Policy, Verifier
from edge_tts.manifest import Pack
from edge_tts.memory import VerifierConfig, peak_memory_mb


@dataclass(frozen=True)
class ModelsConfig:
    """Which models to load, and how; can be sent to another process."""

    pack: Pack
    """Ready to load."""
    engine: EngineConfig
    verifier: VerifierConfig | None
    """None loads none."""
    calculator: bool
    """Whether the runtime writes the results of equations."""


class Models(Protocol):
    """A policy and a verifier that work together, here or in a process of their own."""

    @property
    def policy(self) -> Policy: ...

    @property
    def verifier(self) -> Verifier | None: ...

    def peak_memory_mb(self) -> float:
        """Peak resident memory of the process they are in, in MiB."""

    def close(self) -> None:
        """Release them; idempotent. Calls under way end with BackendError."""


class LoadedModels:
    """Models in this process."""

    def __init__(self, config: ModelsConfig) -> None:
        """Load them. Raises PackError or BackendError."""
        self._stack = ExitStack()
        try:
            self.policy = self._load_policy(config)
            self.verifier = self._load_verifier(config)
        except BaseException:
            self._stack.close()
            raise

    def _load_policy(self, config: ModelsConfig) -> Policy:
        from edge_tts.runtimes.llama import LlamaPolicy

        pack = config.pack
        calculator = pack.calculator if config.calculator else None
        policy = LlamaPolicy(pack.policy_path, config.engine, pack.prompts, calculator)
        self._stack.callback(policy.close)
        return policy

    def _load_verifier(self, config: ModelsConfig) -> Verifier | None:
        from edge_tts.runtimes.verifiers import open_verifier

        pack = config.pack
        if config.verifier is None or pack.verifier_path is None or pack.tokenizer_path is None:
            return None
        verifier = open_verifier(
            pack.verifier_path,
            pack.tokenizer_path,
            threads=1,  # a pass is a few dozen tokens: waking a second thread costs more than it saves
            cache_mb=config.verifier.cache_mb,
            pass_tokens=config.verifier.pass_tokens,
        )
        self._stack.callback(verifier.close)
        return verifier

    def peak_memory_mb(self) -> float:
        return peak_memory_mb()

    def close(self) -> None:
        self._stack.close()


def open_models(config: ModelsConfig, isolate: bool) -> Models:
    """Load the models here, or in a process of their own. Raises PackError or BackendError."""
    if not isolate:
        return LoadedModels(config)
    from edge_tts.isolated import IsolatedModels

    return IsolatedModels(config)
