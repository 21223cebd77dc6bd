"""Loading the models that a plan chose."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_tts.core import Policy, Verifier
from edge_tts.runtimes import saved_prefix
from edge_tts.runtimes.config import EngineConfig, VerifierConfig
from edge_tts.runtimes.interrupts import holding_interrupts
from edge_tts.runtimes.process_memory import peak_memory_mb

if TYPE_CHECKING:
    from edge_tts.runtimes.llama import LlamaPolicy


@dataclass(frozen=True)
class VerifierFiles:
    """An exported PRM, and how to run it."""

    model: Path
    tokenizer: Path
    config: VerifierConfig


@dataclass(frozen=True)
class ModelsConfig:
    """Which models to load, and how; can be sent to another process."""

    policy: Path
    """GGUF file."""
    engine: EngineConfig
    verifier: VerifierFiles | None
    """None: the policy works alone."""
    parameters: int | None = None
    """Weights of the policy that a forward pass multiplies; None: all that it has."""


class Models(Protocol):
    """A policy and a verifier, in this process or in a child process."""

    @property
    def policy(self) -> Policy: ...

    @property
    def verifier(self) -> Verifier | None: ...

    def keep_prefix(self, tokens: tuple[int, ...]) -> None:
        """Have the policy evaluate ``tokens``, which many prompts begin with, or read that from an earlier process."""

    def peak_memory_mb(self) -> float:
        """Peak resident memory of the process that holds them, in MiB."""

    def close(self) -> None:
        """Release them; idempotent. Calls under way end with BackendError."""


class LoadedModels:
    """Models in this process."""

    def __init__(self, config: ModelsConfig) -> None:
        """Load them. Raises PackError or BackendError."""
        self._stack = ExitStack()
        self._config = config
        try:
            with holding_interrupts():
                self._policy = self._load_policy(config)
                self.policy: Policy = self._policy
                self.verifier = self._load_verifier(config)
        except BaseException:
            self._stack.close()
            raise

    def _load_policy(self, config: ModelsConfig) -> LlamaPolicy:
        from edge_tts.runtimes.llama import LlamaPolicy

        policy = LlamaPolicy(config.policy, config.engine, config.parameters)
        self._stack.callback(policy.close)
        return policy

    def _load_verifier(self, config: ModelsConfig) -> Verifier | None:
        from edge_tts.runtimes.onnx_verifier import OnnxVerifier

        if config.verifier is None:
            return None
        verifier = OnnxVerifier(
            config.verifier.model,
            config.verifier.tokenizer,
            threads=config.verifier.config.threads,
            cache_mb=config.verifier.config.cache_mb,
            pass_tokens=config.verifier.config.pass_tokens,
        )
        self._stack.callback(verifier.close)
        return verifier

    def keep_prefix(self, tokens: tuple[int, ...]) -> None:
        if len(tokens) >= saved_prefix.LEAST_TOKENS:
            config = self._config
            self._policy.keep_prefix(tokens, saved_prefix.file_for(config.policy, config.engine, tokens))

    def peak_memory_mb(self) -> float:
        return peak_memory_mb()

    def close(self) -> None:
        with holding_interrupts():
            self._stack.close()
