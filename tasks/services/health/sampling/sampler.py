"""Samples everything in the background and keeps the board; no request waits for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ....host.pm2.app_processes import Census
from ....host.system import run_journal
from ....host.system.log_once import Steady
from ..conditions.answer_board import Answers, Board, Since
from ..conditions.composition import compose
from ..model import settings
from .instance_sampler import InstanceSampler
from .machine_sampler import MachineSampler
from .masking import Masks
from .pm2_state import Supervisor

EVERY = 1.0
"""Seconds between two compositions, where no news comes in between."""
SOON = 0.1
"""Seconds in which news are gathered."""
CENSUS_EVERY = 10.0
FIRST = 1.0
"""Seconds to wait for the first sample of each instance."""
STUCK = 30.0
"""Seconds without a composition after which this server itself is unhealthy."""


class Sampler:
    """All the threads, and the board that they keep."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp = _stamp(file)
        self.settings = settings.read(file)
        self._census = Census(self.settings.workspace, CENSUS_EVERY)
        self._supervisor = Supervisor(self.settings.workspace, self._census)
        self._machine = MachineSampler(lambda: self.settings, self._census, self._supervisor)
        self._masks = Masks(self.settings.layout)
        self._since = Since()
        self._news = threading.Event()
        self._stop = threading.Event()
        self._instances: dict[int, InstanceSampler] = {}
        self.sees_run = False
        """Whether the answers show a run in progress."""
        self._follow_settings()
        self.board = Board(self._compose())

    def start(self) -> None:
        """Begin; what answers at once has been sampled when this returns."""
        deadline = time.monotonic() + FIRST
        for sampler in self._instances.values():
            threading.Thread(target=sampler.run, daemon=True).start()
        for sampler in self._instances.values():
            sampler.has_sampled.wait(max(0.0, deadline - time.monotonic()))
        self.board.publish(self._compose())
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        for sampler in list(self._instances.values()):
            sampler.stop()

    @property
    def alive(self) -> bool:
        """Whether answers are still made."""
        return time.monotonic() - self.board.answers.at < STUCK

    def is_behind(self) -> bool:
        """Whether the run that the answers show has ended since; new answers then come at once.

        Whoever ran it asks right afterwards how it ended.
        """
        if run_journal.is_on(self.settings.layout):
            return False
        self._news.set()
        return True

    def _run(self) -> None:
        steady = Steady()
        while not self._stop.wait(SOON):
            self._news.wait(EVERY)
            self._news.clear()
            # Each by itself: a settings file that is damaged is no reason to tell nothing.
            steady.attempt(self._read_settings)
            steady.attempt(lambda: self.board.publish(self._compose()))

    def _compose(self) -> Answers:
        facts = self._machine.sample(self.settings)
        self.sees_run = facts.run is not None and facts.run.state == "running"
        self._masks.refresh()
        for sampler in self._instances.values():
            sampler.list_models(facts.models or {})
        samples = {gpu: sampler.sample for gpu, sampler in self._instances.items()}
        return compose(facts, samples, self._since, self._masks.json)

    def _read_settings(self) -> None:
        """A run may have written them anew."""
        stamp = _stamp(self._file)
        if stamp is not None and stamp != self._stamp:
            self.settings, self._stamp = settings.read(self._file), stamp
            for sampler in self._follow_settings():
                threading.Thread(target=sampler.run, daemon=True).start()

    def _follow_settings(self) -> list[InstanceSampler]:
        """One sampler for each instance that there should be; those that are new."""
        wanted = {each.gpu: each for each in self.settings.instances}
        for gpu, sampler in list(self._instances.items()):
            if wanted.get(gpu) != sampler.instance:
                self._instances.pop(gpu).stop()
        new = {
            gpu: InstanceSampler(
                each, lambda: self.settings, self._census, self._supervisor, self._news.set
            )
            for gpu, each in wanted.items()
            if gpu not in self._instances
        }
        self._instances |= new
        return list(new.values())


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
