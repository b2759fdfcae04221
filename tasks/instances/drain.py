"""Draining: an instance takes no new jobs, and its jobs end before it is stopped."""

from __future__ import annotations

import atexit
import time
from collections.abc import Collection

from ..engine.run import Run
from ..host.comfyui import api
from ..host.pm2 import apps, pm2
from ..host.system import files, process
from ..host.system.units import duration
from ..spec import Instance
from . import gate

SILENCE_TIMEOUT = 30.0
"""Seconds without an answer after which draining no longer waits for an instance's jobs."""


def drain(run: Run, instances: Collection[Instance]) -> None:
    """Mark instances as draining and wait until they have no jobs, at most `drain_timeout` s.

    The results of the last jobs stay readable for `drain_settle` seconds. The caller removes the
    marks.
    """
    running = {app.name: app for app in pm2.running(run.layout) if app.supervised}
    for instance in instances:
        mark = run.layout.draining(instance.gpu)
        # A signal ends this run without ending its threads in order.
        atexit.register(files.remove, mark)
        files.write_receipt(mark, {"run": process.run_id()})
    drains = [Drain(run, each, running[each.name]) for each in instances if each.name in running]
    while drains := [each for each in drains if not each.is_over()]:
        time.sleep(api.POLL)


class Drain:
    """One instance that is drained. Times are monotonic seconds."""

    def __init__(self, run: Run, instance: Instance, app: apps.App) -> None:
        self._run = run
        self._instance = instance
        self._app = app
        self._port = app.port or instance.port
        self._begin = self._answered = time.monotonic()
        self._ended: float | None = None
        """Since when it has had no jobs."""
        self._had_jobs = False
        self._reported = 0

    def is_over(self) -> bool:
        """Whether it may be stopped now."""
        health, now = gate.probe(self._instance, self._app), time.monotonic()
        limit = self._run.machine.instances.drain_timeout
        late = now - self._begin > limit
        if health.queue is None:
            silent = now - self._answered
            if health.refused or not (late or silent > SILENCE_TIMEOUT):
                self._doing(f"no answer for {duration(silent)}")
                return health.refused
            self._say(f"gave no answer for {silent:.0f} s: jobs that it may have are cut")
            return True
        self._answered = now
        if jobs := health.queue + (health.submitted or 0):
            self._ended, self._had_jobs = None, True
            self._doing(f"ends {_count(jobs)}, at most {duration(limit - (now - self._begin))}")
            if late:
                self._say(
                    f"still had {_count(jobs)} after {limit} s (instances.drain_timeout), "
                    f"which {'is' if jobs == 1 else 'are'} cut{self._named(jobs)}"
                )
            elif self._reported != jobs:
                self._reported = jobs
                self._say(f"restarts after {_count(jobs)}")
            return late
        if self._ended is None:
            self._ended = now if self._had_jobs else self._last_end(health)
        left = self._run.machine.instances.drain_settle - (now - self._ended)
        self._doing(f"its results stay readable for {duration(max(0.0, left))}")
        return late or left <= 0

    def _last_end(self, health: api.ProbeResult) -> float:
        """When its last job ended before this began.

        An instance that takes new jobs may get one from a client that doesn't know the mark, so the
        time counts from now.
        """
        ended = None
        if health.submitted is not None:
            ended = api.last_end(self._instance.listen, self._port, scheme=self._app.scheme)
        now = time.monotonic()
        return now if ended is None else now - max(0.0, time.time() - ended)

    def _named(self, jobs: int) -> str:
        """The ids of its jobs."""
        found = api.jobs(self._instance.listen, self._port, scheme=self._app.scheme)
        names = [*found.running, *found.first_waiting] if found else []
        more = f" and {jobs - len(names)} more" if 0 < len(names) < jobs else ""
        return f": {', '.join(names)}{more}" if names else ""

    def _doing(self, text: str) -> None:
        self._run.doing(f"{self._instance.name} drains: {text}")

    def _say(self, text: str) -> None:
        self._run.say(f"{self._instance.name} {text}")


def _count(jobs: int) -> str:
    return f"{jobs} job" if jobs == 1 else f"{jobs} jobs"
