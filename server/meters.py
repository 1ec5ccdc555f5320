"""The server's metrics, in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .desk import Ask, Outcome

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
RATE_HZ_OF_IDS = 25


class Meters:
    """Of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        self.sessions = Gauge("facrt_open_sessions", "Open sessions.", registry=r)
        self.sessions_total = Counter("facrt_sessions", "Sessions so far.", registry=r)
        self.waiting = Gauge("facrt_waiting_responses", "Responses that wait for the engine.", registry=r)
        self.responses = Counter("facrt_responses_total", "Responses by their end.", ["status"], registry=r)
        self.refusals = Counter("facrt_refusals_total", "Error events by code.", ["code"], registry=r)
        self.audio_in = Counter("facrt_audio_in_seconds_total", "Audio that clients sent.", registry=r)
        self.audio_out = Counter("facrt_audio_out_seconds_total", "Speech that was generated.", registry=r)
        self.wait = Histogram("facrt_wait_seconds", "Wait for the engine.", registry=r, buckets=BUCKETS)
        self.phases = Histogram(
            "facrt_phase_seconds", "From asking for a response to a phase.", ["phase"], registry=r, buckets=BUCKETS
        )

    def heard(self, seconds: float) -> None:
        """A client sent audio."""
        self.audio_in.inc(seconds)

    def refused(self, code: str) -> None:
        """A client was refused."""
        self.refusals.labels(code).inc()

    def answered(self, ask: Ask, outcome: Outcome) -> None:
        """A response is over."""
        self.wait.observe(ask.waited_seconds)
        self.audio_out.inc(outcome.num_speech / RATE_HZ_OF_IDS)
        for phase, ms in outcome.phases_ms.items():
            self.phases.labels(phase).observe(ms / 1e3)

    def text(self) -> bytes:
        """What a scraper reads."""
        return generate_latest(self.registry)
