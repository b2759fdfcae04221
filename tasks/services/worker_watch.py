"""Watches workers: holds them while their instance isn't healthy, and starts them again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from ..host.pm2 import apps, liveness, pm2, process_starts
from ..host.pm2.app_processes import Census, Found
from ..host.system import files
from ..spec.layout import Layout
from .saying import say

FIRST, LONGEST = 1.0, 300.0
"""Seconds until a worker that PM2 has given up is started again; doubled each time."""
STEADY = 30.0
"""Seconds that a worker must run for the next wait to be short again."""
PROBE_EVERY = 10.0
"""Seconds between two probes."""


@dataclass(frozen=True)
class Probe:
    """How a worker shows that it lives; `timeout` in seconds."""

    url: str | None
    command: tuple[str, ...] | None
    timeout: float


@dataclass(frozen=True)
class Watched:
    """A worker to watch."""

    name: str
    gpus: tuple[int, ...]
    """Its instance, or those of the machine: then one that is healthy is enough."""
    shared: bool
    """Whether it belongs to the machine."""
    held: bool
    """Whether it is stopped while its instance isn't healthy, and doesn't outlive its process."""
    cwd: str
    probe: Probe | None = None


CLOCK_DRIFT = 2.0
"""Seconds by which the kernel's start times and the clock may differ."""


@dataclass(frozen=True)
class Service:
    """What was seen of an instance; times in seconds since the epoch."""

    since: float
    """When the process of a healthy instance started; 0: it isn't healthy."""
    at: float
    """When it was looked at."""


Serving = dict[int, Service | None]
"""By GPU; None: a run replaces the instance, or it isn't known yet."""


class WorkerWatch:
    """One worker. Times are monotonic seconds."""

    def __init__(
        self,
        layout: Layout,
        worker: Watched,
        serving: Serving,
        census: Census,
        *,
        hung: float,
        start_timeout: float,
    ) -> None:
        self._layout = layout
        self._worker = worker
        self._serving = serving
        self._census = census
        self._hung, self._start_timeout = hung, start_timeout
        self._wait, self._again = FIRST, 0.0
        self._process: psutil.Process | None = None
        self._passed = False
        self._noted: str | None = ""
        self._good = self._next = 0.0

    def step(self) -> None:
        service = self._service()
        found = self._census.find(self._worker.name)
        if service is None:
            self._process = None
        elif found is None:
            if service.since:
                self._begin()
        elif not self._worker.held or (service.since and self._may_stay(found, service)):
            if self._mark.exists():
                files.remove(self._mark)
            self._watch(found)
        elif service.at > found.app.started + CLOCK_DRIFT:
            # Whoever started it knew more than an older look.
            self._hold(found)

    def _may_stay(self, found: Found, service: Service) -> bool:
        """Whether it started after its instance, or by an older version, which notes no starts and
        lets workers outlive their instance: an upgrade touches nothing that serves."""
        if service.since <= found.app.started:
            return True
        return not process_starts.is_noted(self._layout, self._worker.name, found.app.pid)

    @property
    def _mark(self) -> Path:
        return self._layout.held(self._worker.name)

    def _service(self) -> Service | None:
        """That of its instance. For a worker of the machine any healthy one will do, whenever it
        started."""
        known = [self._serving.get(gpu) for gpu in self._worker.gpus]
        if healthy := [each for each in known if each and each.since]:
            return replace(healthy[0], since=1.0) if self._worker.shared else healthy[0]
        return None if None in known else known[0]

    def _hold(self, found: Found) -> None:
        if not self._layout.state.is_dir():
            return
        files.clear_way(self._mark)
        files.write_text(self._mark, "")
        if pm2.stop(self._layout, self._worker.name, found.app.pid):
            say(f"{self._worker.name} (pid {found.app.pid}) is held until its instance is healthy")

    def _begin(self) -> None:
        """Start it if it was held, or if PM2 has given it up; what a person stopped stays so."""
        now = time.monotonic()
        if now < self._again:
            return
        entry = pm2.apps(self._layout).get(self._worker.name, {})
        status = entry.get("pm2_env", {}).get("status")
        held = status == pm2.STOPPED and self._mark.exists()
        if not held and status != pm2.GIVEN_UP:
            return
        if pm2.begin(self._layout, self._worker.name):
            say(f"{self._worker.name} was started: its instance is healthy")
            files.remove(self._mark)
        self._again = now + self._wait
        self._wait = min(2 * self._wait, LONGEST)

    def _watch(self, found: Found) -> None:
        now = time.monotonic()
        age = time.time() - found.app.started
        if age >= STEADY:
            self._wait = FIRST
        if found.process != self._process:
            self._process, self._passed, self._noted = found.process, False, ""
            self._good, self._next = now, now
        if self._worker.probe is None or now < self._next:
            return
        self._next = now + min(PROBE_EVERY, self._hung / 3)
        why = failure(self._worker.probe, found.process, self._worker.cwd)
        if why is None or self._passed or age >= self._start_timeout:
            self._note(found, why)
        if why is None:
            self._passed, self._good = True, time.monotonic()
        elif now - self._good >= self._hung and (self._passed or age >= self._start_timeout):
            self._good = now
            if pm2.restart(self._layout, self._worker.name, found.app.pid, why):
                say(f"{self._worker.name} (pid {found.app.pid}) was restarted: {why}")

    def _note(self, found: Found, why: str | None) -> None:
        """Let health and status say what the probe found."""
        if why != self._noted:
            liveness.note(self._layout, self._worker.name, apps.identity(found.app.pid) or "", why)
            self._noted = why


def failure(probe: Probe, process: psutil.Process, cwd: str) -> str | None:
    """Why a worker fails its probe; None: it lives."""
    if probe.url is not None:
        return _request(probe.url, probe.timeout)
    assert probe.command is not None
    with suppress(psutil.Error):
        return _run(probe, process.environ(), cwd)
    return None


def _request(url: str, timeout: float) -> str | None:
    import requests

    try:
        with requests.Session() as session:
            # A worker listens on this machine, so no proxy of the environment must be used.
            session.trust_env = False
            with session.get(url, timeout=timeout, stream=True) as answer:
                return None if answer.ok else f"{url} answers {answer.status_code}"
    except requests.RequestException as error:
        return f"{url} doesn't answer ({type(error).__name__})"


def _run(probe: Probe, environ: Mapping[str, str], cwd: str) -> str | None:
    assert probe.command is not None
    words = " ".join(probe.command)
    try:
        ended = subprocess.run(
            probe.command, env=environ, cwd=cwd, timeout=probe.timeout, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{words} didn't end within {probe.timeout:g} s"
    except OSError as error:
        return f"{words} doesn't start: {error.strerror}"
    return None if ended.returncode == 0 else f"{words} ended with code {ended.returncode}"
