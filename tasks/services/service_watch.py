"""Watches the programs of jobs: PM2 starts again what ends, but gives up what ends too soon, and
doesn't see that one hangs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..host.pm2 import pm2
from ..host.pm2.app_processes import Census, Found
from ..host.system import nats_server
from ..spec.layout import Layout
from .saying import say

FIRST, LONGEST = 1.0, 60.0
"""Seconds until one that PM2 has given up is started again; doubled each time."""
STEADY = 30.0
"""Seconds that it must run for the next wait to be short again."""


@dataclass(frozen=True)
class Watched:
    """One of them."""

    name: str
    port: int | None
    """Where our NATS server answers; None: it is another program."""


class ServiceWatch:
    """Watches one. `hung`: seconds without an answer after which it is restarted."""

    def __init__(self, layout: Layout, service: Watched, census: Census, hung: float) -> None:
        self._layout, self._service, self._census = layout, service, census
        self._hung = hung
        self._wait, self._again = FIRST, 0.0
        self._pid, self._good = 0, 0.0

    def step(self) -> None:
        found = self._census.find(self._service.name)
        if found is None:
            self._begin()
            return
        if time.time() - found.app.started >= STEADY:
            self._wait = FIRST
        if self._service.port is not None:
            self._follow(found, self._service.port)

    def _begin(self) -> None:
        """Start it if PM2 has given it up; what a person stopped stays so."""
        now, name = time.monotonic(), self._service.name
        entry = pm2.apps(self._layout).get(name, {}) if now >= self._again else {}
        if entry.get("pm2_env", {}).get("status") != pm2.GIVEN_UP:
            return
        if pm2.begin(self._layout, name):
            say(f"{name} was started again: it had ended too often")
        self._again = now + self._wait
        self._wait = min(2 * self._wait, LONGEST)

    def _follow(self, found: Found, port: int) -> None:
        now, pid = time.monotonic(), found.app.pid
        if pid != self._pid or nats_server.answers(port):
            self._pid, self._good = pid, now
        elif now - self._good >= self._hung:
            self._good = now
            why = f"it didn't answer for {self._hung:g} s"
            if pm2.restart(self._layout, self._service.name, pid, why):
                say(f"{self._service.name} (pid {pid}) was restarted: {why}")
