"""The figures of ``/metrics``, with names and units as Prometheus recommends."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from edge_tts.events import Result
from edge_tts.runtimes.process_memory import peak_memory_mb
from edge_tts.server.admission import Admission

SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
FIRST_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, admission: Admission) -> None:
        registry = self._registry = CollectorRegistry()
        prefix = "edge_reason_"
        self.requests = Counter(
            f"{prefix}requests",
            "Requests by status; 499: the client left first.",
            ["status"],
            registry=registry,
        )
        in_flight = Gauge(f"{prefix}requests_in_flight", "Chat completions that are running.", registry=registry)
        in_flight.set_function(lambda: admission.running)
        queued = Gauge(f"{prefix}queue_length", "Chat completions that are waiting for a slot.", registry=registry)
        queued.set_function(lambda: admission.waiting)
        self.seconds = Histogram(
            f"{prefix}request_seconds",
            "Time from the arrival of a chat completion to its result, including its wait.",
            buckets=SECONDS,
            registry=registry,
        )
        self.first_event = Histogram(
            f"{prefix}first_event_seconds",
            "Time from the arrival of a chat completion to its first reasoning event.",
            buckets=FIRST_SECONDS,
            registry=registry,
        )
        self._policy = Counter(f"{prefix}policy_tokens", "Policy tokens of finished requests.", registry=registry)
        self._verifier = Counter(f"{prefix}verifier_tokens", "Verifier tokens of finished requests.", registry=registry)
        self._lost_events = Counter(
            f"{prefix}lost_events", "Reasoning events dropped because a client read too slowly.", registry=registry
        )
        self._peak_mb = 0.0
        peak = Gauge(f"{prefix}peak_memory_bytes", "Peak resident memory of the models' process.", registry=registry)
        peak.set_function(lambda: max(self._peak_mb, peak_memory_mb()) * 2**20)

    def answered(self, results: Sequence[Result], lost_events: int) -> None:
        """Add the cost of a finished request."""
        self._policy.inc(sum(result.usage.policy_tokens for result in results))
        self._verifier.inc(sum(result.usage.verifier_tokens for result in results))
        self._lost_events.inc(lost_events)
        self._peak_mb = max(self._peak_mb, *(result.usage.peak_memory_mb for result in results))

    def exposition(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)
