"""Jobs of our own: the warm-up of an instance that PM2 started again, and canaries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ....host.comfyui import started_with, warmup
from ....host.comfyui.own_jobs import Trial
from ....host.system.log_once import LogOnce
from ....host.system.run_lock import RunLock
from ..model.facts import Sample
from ..model.settings import Instance, Settings
from . import canary

EVERY = 1.0


class TrialRunner:
    """Runs the warm-up and canary of one instance, in its own thread: a job may take long."""

    def __init__(
        self, instance: Instance, settings: Callable[[], Settings], sample: Callable[[], Sample]
    ) -> None:
        self._instance = instance
        self._settings = settings
        self._sample = sample
        self._stop = threading.Event()
        self._canary: tuple[object, canary.Canary] | None = None
        self.canary: Trial | None = None
        """The outcome of this process's last canary."""

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        log_once = LogOnce()
        while not self._stop.wait(EVERY):
            log_once.attempt(self.step)

    def step(self) -> None:
        """Run what is due, and wait for it."""
        sample = self._sample()
        observation, app = sample.observation, sample.observation.state.app
        if app is None or not observation.answer.healthy or sample.silent is not None:
            self.canary = self.canary if app else None
            return
        settings = self._settings()
        listen = started_with.listens_on(app.pid, self._instance.listen)
        # A run warms up the instances that it starts.
        no_run = RunLock(settings.workspace).holder() is None
        if settings.warmup and no_run:
            known = warmup.outcome(settings.layout, self._instance.gpu, app)
            if warmup.is_due(known, time.time()):
                warmup.warm(
                    settings.layout, self._instance.gpu, app, listen, settings.warmup,
                    settings.start_timeout,
                )  # fmt: skip
        if (current := self._configured(settings)) is not None:
            idle = no_run and not observation.draining and not observation.cold
            port = app.port or self._instance.port
            self.canary = current.step(
                app.pid, listen, port, observation.answer.queue, idle, app.scheme
            )

    def _configured(self, settings: Settings) -> canary.Canary | None:
        """The canary that machine.yaml configures now."""
        if settings.canary is None:
            self._canary, self.canary = None, None
            return None
        wanted = (settings.canary, settings.canary_every, settings.start_timeout)
        if self._canary is None or self._canary[0] != wanted:
            schedule = canary.Schedule(settings.canary_every, settings.start_timeout)
            self._canary = (wanted, canary.Canary(settings.canary, schedule))
        return self._canary[1]
