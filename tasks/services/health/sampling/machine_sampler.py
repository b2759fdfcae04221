"""Samples what the instances share: what is installed, the run, models, GPUs, workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from ....host.comfyui import job_apps, machine_condition
from ....host.comfyui.job_apps import JobApp
from ....host.comfyui.machine_condition import SILENT
from ....host.downloads import model_files
from ....host.downloads.model_files import ModelState, Place
from ....host.generations import installed
from ....host.pm2.app_processes import Census
from ....host.pm2.app_state import AppState
from ....host.storage import full_disks
from ....host.system import files, gpu, nats_server, run_journal
from ....host.system.failure import Failure
from ....host.system.log_once import LogOnce
from ....host.system.stat_cache import while_unchanged
from ....spec import Lock, SpecError
from ....spec.lock_format import read_lock
from ... import watcher_guard
from ..model.answers import Card, JobQueue, Layer, Packages, Part
from ..model.facts import Facts, Installed
from ..model.settings import Settings
from . import queue_sampler
from .pm2_state import Supervisor

INSTALLED_EVERY = 2.0
MODELS_EVERY = 1.5
CARDS_EVERY = 5.0
DISKS_EVERY = 2.0
JOBS_EVERY = 2.0
"""Seconds between two samples; one that takes long is followed by a longer pause."""
PAUSE_FACTOR = 30
"""The pause after a sample, as a multiple of its duration: thousands of models take a while."""
FIRST_TIMEOUT = 2.0
"""Seconds to wait for the first sample."""

T = TypeVar("T", bound=BaseModel)
V = TypeVar("V")


class Background(Generic[V]):
    """Samples repeatedly in its own thread: a volume that hangs blocks nothing else."""

    def __init__(
        self,
        sample: Callable[[], V],
        every: float,
        hurried: Callable[[], None] = lambda: None,
        factor: float = PAUSE_FACTOR,
    ) -> None:
        self._sample = sample
        self._every = every
        self._hurried = hurried
        self._factor = factor
        self._first, self._wake = threading.Event(), threading.Event()
        self._is_hurried = False
        self.at = 0.0
        """When the last sample began, by the monotonic clock."""
        self.last: V | None = None
        """The last sample; None before the first is done."""

    def start(self, patience: float = FIRST_TIMEOUT) -> None:
        """Start, and wait for the first sample, `patience` seconds at most."""
        threading.Thread(target=self._run, daemon=True).start()
        self._first.wait(patience)

    def _run(self) -> None:
        log_once = LogOnce()
        while True:
            begin = time.monotonic()
            log_once.attempt(self._once)
            self._first.set()
            if self._is_hurried:
                self._is_hurried = False
                self._hurried()
            self._is_hurried = self._wake.wait(
                max(self._every, self._factor * (time.monotonic() - begin))
            )
            self._wake.clear()

    def hurry(self) -> None:
        """Sample now, and say so."""
        self._wake.set()

    def _once(self) -> None:
        begin = time.monotonic()
        self.last = self._sample()
        self.at = begin


class MachineSampler:
    """Samples the machine; one thread calls `sample`, which waits for nothing."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        census: Census,
        supervisor: Supervisor,
        hurried: Callable[[], None],
    ) -> None:
        self._census = census
        self._supervisor = supervisor
        self._installed = Background(lambda: _installed(settings()), INSTALLED_EVERY, hurried)
        self._models = Background(lambda: _models(settings()), MODELS_EVERY, hurried)
        self._cards = Background(lambda: _cards(settings()), CARDS_EVERY)
        self._full = Background(lambda: full_disks.full(settings().layout), DISKS_EVERY)
        self._silent = Background(lambda: _silent_port(settings()), JOBS_EVERY, hurried, 1)
        for each in (self._installed, self._models, self._cards, self._full, self._silent):
            each.start()
        self._queue = Background(lambda: queue_sampler.sample(settings()), JOBS_EVERY, factor=1)
        # The gateway may hang, and nothing that must be known at once comes from it.
        self._queue.start(patience=0)

    @property
    def at(self) -> float:
        """When the oldest of the samples that runs change began, by the monotonic clock."""
        return min(self._installed.at, self._models.at, self._silent.at)

    def hurry(self) -> None:
        """Sample now, and say so."""
        self._installed.hurry()
        self._models.hurry()
        self._silent.hurry()

    def sample(self, settings: Settings) -> Facts:
        refused = files.read_receipt(settings.layout.refused, reason=str)
        return Facts(
            at=self.at,
            settings=settings,
            installed=self._installed.last or Installed(Layer(ok=False, reason=SILENT)),
            models=self._models.last,
            run=run_journal.read(settings.layout),
            behind=str(refused.get("reason") or "left by hand") if refused else "",
            cards=self._cards.last or {},
            watcher=watcher_guard.fault(settings.layout, self._census),
            workers={each.name: self._state(settings, each.name) for each in settings.workers},
            jobs=self._jobs(settings),
            queue=self._jobs_told(settings),
            full=self._full.last or (),
            observed=machine_condition.digest(settings.declared, _lock_digest(settings.lock_file)),
        )

    def _jobs(self, settings: Settings) -> Sequence[JobApp]:
        names = settings.jobs.apps if settings.jobs else ()
        return job_apps.look(
            {name: self._state(settings, name) for name in names}, self._silent.last
        )

    def _jobs_told(self, settings: Settings) -> JobQueue | None:
        if settings.jobs is None or settings.jobs.gateway is None:
            return None
        return self._queue.last or JobQueue(ok=False, reason="the gateway wasn't asked yet")

    def _state(self, settings: Settings, name: str) -> AppState:
        found = self._census.find(name)
        return self._supervisor.state(name, found, None)


@while_unchanged
def _lock(file: Path) -> tuple[Lock, str]:
    """The lock, and why it can't be read; empty if it can."""
    try:
        return read_lock(file, file.name), ""
    except SpecError as error:
        return Lock(), str(error)


_lock_digest = while_unchanged(files.file_digest)


def _installed(settings: Settings) -> Installed:
    layout = settings.layout
    lock, damage = _lock(settings.lock_file)
    found = installed.look(layout, lock, settings.comfyui, settings.nodes)
    return Installed(
        layer=Layer(ok=found.ok and not damage, reason=damage or found.reason),
        packages=_as(Packages, found.packages),
        generation=found.generation,
        comfyui=_as(Part, found.comfyui),
        nodes=[_as(Part, node) for node in found.nodes],
        degraded=found.degraded,
    )


def _models(settings: Settings) -> dict[str, ModelState]:
    lock, _ = _lock(settings.lock_file)
    place = Place(settings.layout, settings.models_folder, settings.store, lock.models)
    return model_files.look(place, settings.models)


def _silent_port(settings: Settings) -> int | None:
    """The port at which our NATS server doesn't answer; None: it does, or there is none."""
    port = settings.jobs.port if settings.jobs else None
    return None if port is None or nats_server.answers(port) else port


def _as(model: type[T], found: Any) -> T:
    return model(**asdict(found))


def _cards(settings: Settings) -> dict[int, Card]:
    """The GPU of each instance, as far as the driver reports it."""
    whole = [each for each in settings.instances if each.whole]
    if not whole or not gpu.driver_present():
        return {}
    try:
        here = gpu.inventory()
    except Failure:
        return {}
    pins: Mapping[str, str] = {}
    if settings.pinned:
        pins = files.read_receipt(settings.layout.gpus, gpus=dict).get("gpus", {})
    found = {each.gpu: gpu.of(here, each.gpu, pins.get(each.name)) for each in whole}
    return {
        number: Card(name=it.name, uuid=it.uuid, memory_used=it.used, memory_total=it.total)
        for number, it in found.items()
        if it is not None
    }
