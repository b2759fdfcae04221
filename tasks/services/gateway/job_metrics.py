"""What Prometheus scrapes of the jobs: those that wait and run now, and what became of the others
since the gateway started."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ..jobs.record import ENDED, Record
from .job_view import JobView

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Bounds of the histograms: a picture takes seconds, a video an hour."""


class JobMetrics:
    """The numbers of one view."""

    def __init__(self, view: JobView) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._view = view
        for name, says, value in (
            ("waiting", "Jobs that wait.", lambda: view.waiting),
            ("running", "Jobs that run.", lambda: len(view.running())),
            ("oldest_waiting_seconds", "Since the oldest that waits was submitted.", self._oldest),
            ("dead", "Jobs that ended their instance or worker each time.", lambda: view.dead),
        ):
            gauge = Gauge(f"comfy_machine_jobs_{name}", says, registry=self.registry)
            gauge.set_function(value)
        self._ended = Counter(
            "comfy_machine_jobs_ended", "Jobs that have ended.", ["outcome"], registry=self.registry
        )
        self._attempts = Counter(
            "comfy_machine_job_attempts", "Starts of jobs.", registry=self.registry
        )
        self._waited = Histogram(
            "comfy_machine_job_wait_seconds", "From the submission to the last start.",
            ["outcome"], registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self._ran = Histogram(
            "comfy_machine_job_run_seconds", "From the last start to the end.",
            ["outcome"], registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self._webhooks = Counter(
            "comfy_machine_job_webhooks", "Ends of jobs that were told, or couldn't be.",
            ["outcome"], registry=self.registry,
        )  # fmt: skip
        view.stepped = self.stepped

    def stepped(self, before: Record | None, now: Record) -> None:
        """Count a step of a job."""
        self._attempts.inc(max(0, now.attempt - (before.attempt if before else 0)))
        told = now.webhook.state if now.webhook else "pending"
        if told != "pending" and not (before and before.webhook == now.webhook):
            self._webhooks.labels(told).inc()
        if now.state not in ENDED or (before and before.state in ENDED):
            return
        self._ended.labels(now.state).inc()
        if now.started:
            self._waited.labels(now.state).observe(max(0.0, now.started - now.submitted))
            self._ran.labels(now.state).observe(max(0.0, now.ended - now.started))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)

    def _oldest(self) -> float:
        oldest = self._view.oldest()
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)
