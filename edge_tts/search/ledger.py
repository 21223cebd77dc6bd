"""What one search may spend and has spent: generations, tokens, FLOPs, seconds and joules."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    Budget,
    ModelInfo,
    StepEvent,
    Usage,
)
from edge_tts.errors import InputError


class SharedBudget:
    """What several searches may spend together: each charges what it costs, and once it is closed all of them end."""

    def __init__(self, spent: Usage | None = None) -> None:
        self.spent = spent or Usage()
        self.closed = False
        self._lock = threading.Lock()

    def charge(self, usage: Usage) -> None:
        with self._lock:
            self.spent += usage


class Ledger:
    """Counts the cost of one search and knows when it has to stop.

    Time and budget run from its creation, so the difficulty estimate and the search that follows share one.
    """

    def __init__(
        self,
        policy: ModelInfo,
        verifier: ModelInfo | None = None,
        budget: Budget | None = None,
        deadline: float | None = None,
        watts: float | None = None,
        cancel: Cancellation | None = None,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedBudget | None = None,
    ) -> None:
        """``deadline`` is an instant of ``clock``, the clock that the policy's deadlines are instants of.

        ``watts`` is the power drawn while searching. Raises InputError for a budget in joules without it.
        """
        self.budget, self.clock = budget or Budget(), clock
        self.cancel = cancel or Cancellation()
        self._shared = shared
        if self.budget.joules is not None and not watts:
            raise InputError(
                f"a budget of {self.budget.joules:g} joules needs the device's power, and watts is {watts}; "
                "use a profile that states it, or a budget in seconds"
            )
        self._policy_flops = 2.0 * policy.parameters
        self._verifier_flops = 2.0 * verifier.parameters if verifier else 0.0
        self._spent = Usage()
        self._steps = 0
        self._scored_trace_tokens = 0
        self._started = clock()
        ends = [(math.inf, "")]
        if deadline is not None:
            ends.append((deadline, "deadline"))
        if self.budget.seconds is not None:
            ends.append((self._started + self.budget.seconds, "deadline"))
        if self.budget.joules is not None and watts:
            ends.append((self._started + self.budget.joules / watts, "budget: joules"))
        self.ends, self._ends_because = min(ends)
        """Instant at which the search has to be over; infinite where nothing bounds the time."""
        self._stopped: str | None = None
        self.clipped = False
        """Whether fewer generations were granted than asked for."""

    @property
    def usage(self) -> Usage:
        """What was spent since the ledger was made; the caller adds peak memory."""
        return replace(self._spent, seconds=self.clock() - self._started)

    @property
    def generations(self) -> int:
        """Full traces, or their equivalent in candidates, that were started."""
        return self._spent.generations

    @property
    def policy_tokens(self) -> int:
        """Tokens that the policy has evaluated."""
        return self._spent.policy_tokens

    def seconds_left(self) -> float:
        """Time until the search has to be over: at least 0, infinite where nothing bounds it, 0 once cancelled."""
        return 0.0 if self.cancel.requested else max(0.0, self.ends - self.clock())

    def exhausted(self) -> str | None:
        """Why the search has to stop now, or None: "deadline", "budget: tokens", "budget: flops",
        "budget: joules", "budget: total" or "cancelled". Once given, a reason stays.
        """
        if self.cancel.requested:
            self._stopped = self._stopped or "cancelled"
        if self.clock() >= self.ends:
            self._stopped = self._stopped or self._ends_because
        self.overspent()
        if self._shared is not None and self._shared.closed:
            self._stopped = self._stopped or "budget: total"
        return self._stopped

    def cut_short(self) -> None:
        """The policy cancelled a request: the search is over, whatever the clock says."""
        self._stopped = self.exhausted() or self._ends_because or "cancelled"

    def overspent(self, scoring_tokens: int = 0) -> bool:
        """Whether tokens or FLOPs are used up, with ``scoring_tokens`` of the verifier still to be paid."""
        flops = self._spent.policy_flops + self._spent.verifier_flops + self._verifier_flops * scoring_tokens
        if self.budget.tokens is not None and self._spent.policy_tokens >= self.budget.tokens:
            self._stopped = self._stopped or "budget: tokens"
            return True
        if self.budget.flops is not None and flops >= self.budget.flops:
            self._stopped = self._stopped or "budget: flops"
            return True
        return False

    def claim(self, generations: int) -> int:
        """Take up to ``generations`` from the budget; gives how many were left to take."""
        wanted, cap = max(0, generations), self.budget.generations
        granted = wanted if cap is None else max(0, min(wanted, cap - self.generations))
        self._spend(Usage(generations=granted))
        self.clipped = self.clipped or granted < wanted
        return granted

    def give_back(self, generations: int) -> None:
        """Return generations that were claimed and never began."""
        self._spend(Usage(generations=-generations))

    def tokens_left(self) -> int | None:
        """Policy tokens that the budget still allows, at least 1; None where it does not bound them."""
        return None if self.budget.tokens is None else max(1, self.budget.tokens - self._spent.policy_tokens)

    def charge_step(self, event: StepEvent) -> None:
        """Charge a step of the policy."""
        self._steps += 1
        self._charge_policy(event.prefill_tokens, len(event.tokens), event.forced_tokens, event.shared_tokens)

    def charge_abandoned(self, requests: int) -> None:
        """Charge half a mean step for each of ``requests`` that are closed in the middle of a step.

        A closed policy does not report its partial steps any more.
        """
        if self._steps:
            self._charge_policy(0, round(requests * self._spent.generated_tokens / self._steps / 2))

    def charge_verifier(self, tokens: int, seconds: float, trace_tokens: int) -> None:
        """Charge a pass of the verifier over traces that have ``trace_tokens`` policy tokens; 0 where it broke off."""
        self._scored_trace_tokens += trace_tokens
        flops = self._verifier_flops * tokens
        self._spend(Usage(verifier_tokens=tokens, verifier_flops=flops, verifier_seconds=seconds))

    def charge_interpreter(self, seconds: float) -> None:
        """Charge the time that running a program took."""
        self._spend(Usage(interpreter_seconds=seconds))

    def verifier_tokens(self, trace_tokens: int) -> int:
        """Predicted verifier tokens of traces that have ``trace_tokens`` policy tokens, prompts included."""
        if not self._scored_trace_tokens:
            return trace_tokens
        return math.ceil(trace_tokens * self._spent.verifier_tokens / self._scored_trace_tokens)

    def _charge_policy(self, prefill: int, generated: int, forced: int = 0, shared: int = 0) -> None:
        tokens = prefill + generated - shared
        flops = self._policy_flops * tokens
        self._spend(Usage(tokens, generated, forced, policy_flops=flops))

    def _spend(self, usage: Usage) -> None:
        self._spent += usage
        if self._shared is not None:
            self._shared.charge(usage)
