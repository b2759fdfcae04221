"""Samples everything in the background and keeps the board; no request waits for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ....host.pm2.app_processes import Census
from ....host.system import run_journal
from ....host.system.log_once import LogOnce
from ....host.system.run_lock import RunLock
from ....host.system.stat_cache import MISSING, stamp
from ... import watcher_guard
from ..conditions.answer_board import Answers, Board, Since
from ..conditions.composition import compose
from ..model.settings import in_service, read_settings
from .instance_sampler import InstanceSampler
from .job_pictures import Pictures
from .machine_sampler import MachineSampler
from .masking import Masks
from .pm2_state import Supervisor

EVERY = 1.0
"""Seconds between two compositions while nothing changes."""
SOON = 0.1
"""Seconds in which changes are collected."""
CENSUS_EVERY = 10.0
FIRST_TIMEOUT = 1.0
"""Seconds to wait for the first sample of each instance."""
JUST_ENDED = 3.0
"""Seconds after a command's end in which older answers are not given."""
STUCK = 30.0
"""Seconds without a composition after which this server itself is unhealthy."""


class Sampler:
    """Runs all sampling threads, and publishes the answers."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.settings = in_service(read_settings(file))
        self._stamp = self._stamps()
        self._census = Census(self.settings.workspace, CENSUS_EVERY)
        self._supervisor = Supervisor(self.settings.workspace, self._census)
        self._changed = threading.Event()
        self._lock = RunLock(self.settings.workspace)
        self._machine = MachineSampler(
            lambda: self.settings, self._census, self._supervisor, self._changed.set
        )
        self._masks = Masks(self.settings.layout)
        self.pictures = Pictures(self._gateway)
        self._since = Since()
        self._stop = threading.Event()
        self._instances: dict[int, InstanceSampler] = {}
        self.sees_run = False
        """Whether the answers show a run in progress."""
        self._follow_settings()
        self.board = Board(self._compose())

    def start(self) -> None:
        """Start; when this returns, instances that answer at once have been sampled."""
        deadline = time.monotonic() + FIRST_TIMEOUT
        for sampler in self._instances.values():
            threading.Thread(target=sampler.run, daemon=True).start()
        for sampler in self._instances.values():
            sampler.has_sampled.wait(max(0.0, deadline - time.monotonic()))
        self.board.publish(self._compose())
        threading.Thread(target=self._run, daemon=True).start()
        watcher_guard.start(self.settings.layout, self._census, self._stop)

    def stop(self) -> None:
        self._stop.set()
        for sampler in list(self._instances.values()):
            sampler.stop()

    @property
    def alive(self) -> bool:
        """Whether answers are still being composed."""
        return time.monotonic() - self.board.answers.at < STUCK

    def shows_a_past_run(self) -> bool:
        """Whether the run that the answers show has ended since; then compose new ones at once."""
        if run_journal.is_on(self.settings.layout):
            return False
        self._changed.set()
        return True

    def needed(self) -> float:
        """How new answers must be that include what a command did which has just ended, by the
        monotonic clock. If the present ones are older, sample at once.

        Clients often ask for the result right after a run.
        """
        ended = self._lock.ended() or 0.0
        past = time.time() - ended
        if not 0 <= past < JUST_ENDED:
            return 0.0
        moment = time.monotonic() - past
        if self.board.answers.seen < moment:
            samplers: list[MachineSampler | InstanceSampler] = [*self._instances.values()]
            for each in [*samplers, self._machine]:
                if each.at < moment:
                    each.hurry()
        return moment

    def _gateway(self) -> str | None:
        return self.settings.jobs.gateway if self.settings.jobs else None

    def _run(self) -> None:
        log_once = LogOnce()
        while not self._stop.wait(SOON):
            self._changed.wait(EVERY)
            self._changed.clear()
            # Separately: a damaged settings file must not stop the answers.
            log_once.attempt(self._read_settings)
            log_once.attempt(lambda: self.board.publish(self._compose()))

    def _compose(self) -> Answers:
        facts = self._machine.sample(self.settings)
        self.sees_run = facts.run is not None and facts.run.state == "running"
        self._masks.refresh()
        for sampler in self._instances.values():
            sampler.list_models(facts.models or {})
        samples = {gpu: sampler.sample for gpu, sampler in self._instances.items()}
        return compose(facts, samples, self._since, self._masks.json)

    def _read_settings(self) -> None:
        """Read the settings again if a run has changed them."""
        now = self._stamps()
        if now[0] != MISSING and now != self._stamp:
            self.settings, self._stamp = in_service(read_settings(self._file)), now
            for sampler in self._follow_settings():
                threading.Thread(target=sampler.run, daemon=True).start()

    def _stamps(self) -> tuple[object, object]:
        return stamp(self._file), stamp(self.settings.layout.cordoned)

    def _follow_settings(self) -> list[InstanceSampler]:
        """Keep one sampler for each configured instance; return the new ones."""
        wanted = {each.gpu: each for each in self.settings.instances}
        for gpu, sampler in list(self._instances.items()):
            if wanted.get(gpu) != sampler.instance:
                self._instances.pop(gpu).stop()
        new = {
            gpu: InstanceSampler(
                each, lambda: self.settings, self._census, self._supervisor, self._changed.set
            )
            for gpu, each in wanted.items()
            if gpu not in self._instances
        }
        self._instances |= new
        return list(new.values())
