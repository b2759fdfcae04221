"""doit is ended at moments of chance: nothing it started stays, and the next one converges."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from comfy_machine.host.system import process
from tests.chaos.machines import Stuck, Victim, Victims

LONGEST = 8.0
"""Seconds after which a run has ended by itself on most machines."""
GRACE = 20.0
"""Seconds that a run has to end after a signal, and what it started after it."""


@dataclass(frozen=True)
class Kill:
    """A signal, sent to a run of doit after a time of chance."""

    signal: str
    what: str
    """A first build, a first up, or an upgrade."""

    @property
    def kind(self) -> str:
        return f"{self.signal} during {self.what}"

    def __str__(self) -> str:
        return self.kind

    def do(self, victims: Victims, chance: random.Random) -> str | None:
        """When it was; None when the run had ended before. Raises Stuck."""
        victim = victims.next() if self.what == "an upgrade" else victims.fresh()
        try:
            return self._do(victim, chance)
        finally:
            if self.what != "an upgrade":
                victim.close()

    def _do(self, victim: Victim, chance: random.Random) -> str | None:
        if self.what == "an upgrade":
            victim.upgrade()
        # As many early as late ones, although a run on a fast machine ends early.
        delay = LONGEST ** chance.uniform(-1.5, 1.0)
        words = ["build"] if self.what == "a first build" else []
        with victim.rig.going(*words) as run:
            time.sleep(delay)
            in_time = run.poll() is None
            run.send_signal(getattr(signal, self.signal))
            try:
                output, _ = run.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                raise Stuck(f"doit still runs {GRACE:g} s after {self.signal}") from None
        if in_time and self.signal != "SIGKILL" and (left := _left_by(run.pid)):
            raise Stuck(f"{self.signal} after {delay:.2f} s left {left}; doit said:\n{output}")
        victim.settle()
        if self.signal == "SIGKILL" and (left := _left_by(run.pid)):
            raise Stuck(f"after {delay:.2f} s the run left {left}, and the next one left it too")
        return f"after {delay:.2f} s" if in_time else None


def _left_by(pid: int) -> list[str]:
    """The commands that a run started and that haven't ended."""
    deadline = time.monotonic() + 1.0
    while True:
        left = [each for each in psutil.process_iter() if _is_of(each, pid)]
        if not left or time.monotonic() > deadline:
            return [str(process.command_of(each.pid)) for each in left]
        time.sleep(0.05)


def _is_of(each: psutil.Process, pid: int) -> bool:
    try:
        run = each.environ().get(process.RUN, "")
        return run.startswith(f"{pid}.") and each.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def cases(chance: random.Random) -> Iterator[Kill]:
    """Without end; upgrades most of all, which cost the least."""
    while True:
        name = chance.choice(["SIGKILL", "SIGTERM", "SIGINT"])
        yield Kill(
            name, chance.choices(["an upgrade", "a first build", "a first up"], [6, 1, 1])[0]
        )
