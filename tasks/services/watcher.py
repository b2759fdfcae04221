"""Watches the instances, restarts those that are unhealthy, rotates logs and masks secrets in them.

`python -m comfy_machine.services.watcher FILE`: FILE has the settings. Each instance has its own
thread, so that none waits for another. An instance's watch.json has the current symptom and the
last restart.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from ..host.comfyui import api, health_client, started_with, symptoms, warmup
from ..host.comfyui.api import Jobs, ProbeResult
from ..host.comfyui.condition import Condition
from ..host.pm2 import apps, log_rotation, pm2
from ..host.pm2.app_processes import Census, Found
from ..host.system import files, heartbeat, usage
from ..host.system.failure import Failure
from ..host.system.run_lock import RunLock
from ..spec.layout import Layout
from . import gpu_watch, service_watch, worker_watch
from .log_masks import LogMasks
from .saying import say
from .service_watch import ServiceWatch
from .worker_watch import Service, Serving, WorkerWatch

COSTLY_EVERY = 5
"""Only every so many measurements list the jobs, with all their prompts, and measure memory."""
RETRY_AFTER = 30.0
"""Seconds until a restart that PM2 did not carry out is tried again."""


@dataclass(frozen=True)
class Watched:
    """An instance to watch."""

    gpu: int
    name: str
    listen: str


@dataclass(frozen=True)
class Settings:
    """The settings file; times in seconds."""

    workspace: Path
    instances: tuple[Watched, ...]
    server: dict[str, Any] | None
    """Where the health server listens; None: there is no server."""
    limits: symptoms.Limits
    logs: log_rotation.Rules
    restart: bool
    every: float
    workers: tuple[worker_watch.Watched, ...] = ()
    services: tuple[service_watch.Watched, ...] = ()
    """The programs of jobs."""
    warms: bool = False
    """Whether an instance must run its warm-up job before it counts as healthy."""
    cards: tuple[gpu_watch.Card, ...] = ()
    pinned: bool = False
    """Whether each instance's GPU is recorded by UUID."""

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)


def read_settings(file: Path) -> Settings:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    # Those with a default here came later: PM2 may restart the watcher with an older file.
    return Settings(
        workspace=Path(found["workspace"]),
        instances=tuple(Watched(**each) for each in found["instances"]),
        server=found["server"],
        limits=symptoms.Limits(**found["rules"]),
        logs=log_rotation.Rules(**found["logs"]),
        restart=found["restart"],
        every=found["every"],
        workers=tuple(map(_read_worker, found.get("workers", []))),
        services=tuple(service_watch.Watched(**each) for each in found.get("services", [])),
        warms=found.get("warms", False),
        cards=tuple(
            gpu_watch.Card(each["gpu"], each["name"], tuple(each["workers"]))
            for each in found.get("cards", [])
        ),
        pinned=found.get("pinned", False),
    )


def _read_worker(found: dict[str, Any]) -> worker_watch.Watched:
    probe = found.pop("probe")
    return worker_watch.Watched(
        **found | {"gpus": tuple(found["gpus"])},
        probe=worker_watch.Probe(**probe) if probe else None,
    )


class Watch:
    """One instance: measures it, records what is wrong, restarts it."""

    def __init__(
        self,
        settings: Settings,
        instance: Watched,
        census: Census,
        serving: Serving | None = None,
    ) -> None:
        self._settings = settings
        self._serving = {} if serving is None else serving
        self._instance = instance
        self._census = census
        self._file = settings.layout.watched(instance.gpu)
        self._written = files.read_receipt(self._file)
        self._process: psutil.Process | None = None
        self._listen, self._port, self._scheme = instance.listen, 0, "http"
        self._history = symptoms.History()
        self._noted = False
        self._measurements = 0
        self._symptom: dict[str, Any] = {}
        self._retry_at = 0.0
        self._children: dict[int, psutil.Process] = {}
        # Of the same clock as the start of an instance; time.time() may differ by a second.
        self._began = psutil.Process().create_time()

    def step(self) -> None:
        at, found = time.time(), self._census.find(self._instance.name)
        process = found.process if found else None
        if process != self._process:
            self._end_children()
            self._process, self._port = process, (found.app.port or 0) if found else 0
            self._scheme = found.app.scheme if found else "http"
            self._listen = self._instance.listen
            if found:
                self._listen = started_with.listens_on(found.app.pid, self._listen)
            self._history, self._noted = symptoms.History(self._passed()), False
            self._measurements, self._retry_at = 0, 0.0
        if process is None or found is None:
            self._serving[self._instance.gpu] = None if self._draining() else Service(0.0, at)
            self._record(0, None)
            return
        self._follow_children(process.pid)
        if self._draining():
            self._serving[self._instance.gpu] = None
        else:
            now = self._measure(process)
            self._history, wrong = symptoms.follow(self._history, now, self._settings.limits)
            serves = wrong is None and self._serves(found)
            # One that is older than this watcher may be busy, and has answered the last one.
            unknown = wrong is None and not serves and found.app.started < self._began
            since = found.app.started if serves else 0.0
            self._serving[self._instance.gpu] = None if unknown else Service(since, at)
            self._record(process.pid, wrong)
            if wrong and self._settings.restart and time.monotonic() >= self._retry_at:
                self._restart(process.pid, wrong)

    def _follow_children(self, pid: int) -> None:
        """Remember its children, to end them with it: later nothing may tell whose they were."""
        pids = usage.family(pid)[1:]
        for ended in self._children.keys() - pids:
            del self._children[ended]
        for started in set(pids) - self._children.keys():
            with suppress(psutil.Error):
                self._children[started] = psutil.Process(started)

    def _end_children(self) -> None:
        if left := [each for each in self._children.values() if apps.runs(each)]:
            apps.end_all(left)
            pids = ", ".join(str(each.pid) for each in left)
            say(f"{self._instance.name} left processes behind, which were ended: {pids}")
        self._children = {}

    def _passed(self) -> bool:
        """Whether this process has been healthy: it passed the gate of a run, or answered before
        this watcher was started."""
        layout, gpu = self._settings.layout, self._instance.gpu
        if self._process is None:
            return False
        answered = files.read_receipt(layout.answered(gpu)).get("process")
        passed = files.read_receipt(layout.healthy(gpu)).get("pid") == self._process.pid
        return passed or (bool(answered) and answered == apps.identity(self._process.pid))

    def _serves(self, found: Found) -> bool:
        """Whether it has finished its start, its warm-up job too; a busy one may be silent."""
        layout, gpu = self._settings.layout, self._instance.gpu
        if not (self._history.has_answered or self._passed()):
            return False
        if not self._noted and layout.instance(gpu).is_dir():
            self._noted = True
            files.write_receipt(layout.answered(gpu), {"process": apps.identity(found.app.pid)})
        return not (self._settings.warms and warmup.is_cold(layout, gpu, found.app))

    def _draining(self) -> bool:
        """Whether a run waits for its jobs to end and then restarts it."""
        mark = self._settings.layout.draining(self._instance.gpu)
        if not mark.exists() or RunLock(self._settings.workspace).holder() is not None:
            return mark.exists()
        # A killed run left the mark, and workers send no jobs while it exists.
        files.remove(mark)
        say(f"{self._instance.name} was still marked as draining although no run is in progress")
        return False

    def _measure(self, process: psutil.Process) -> symptoms.Measurement:
        is_costly = self._measurements % COSTLY_EVERY == 0
        self._measurements += 1
        health = api.probe(self._listen, self._port, scheme=self._scheme)
        jobs = self._jobs(health, is_costly)
        none_runs = (
            jobs and jobs.waiting and not jobs.running
        ) or self._history.untaken is not None
        measures_memory = is_costly and self._settings.limits.memory
        return symptoms.Measurement(
            at=time.monotonic(),
            age=time.time() - process.create_time(),
            answered=health.answered,
            effort=usage.effort(process.pid) if none_runs or not health.answered else None,
            jobs=jobs,
            memory=usage.own_memory(process.pid) if measures_memory else None,
        )

    def _jobs(self, health: ProbeResult, is_costly: bool) -> Jobs | None:
        if health.queue == 0:
            return Jobs()
        if health.queue is None or not (is_costly or self._settings.limits.job_timeout < 60):
            return None
        return api.jobs(self._listen, self._port, scheme=self._scheme)

    def _record(self, pid: int, found: Condition | None) -> None:
        """Record what is wrong, once; the last restart stays recorded."""
        code = found.reason if found else None
        is_recorded = self._symptom.get("pid") == pid and self._symptom.get("code") == code
        if found and not is_recorded:
            self._symptom = {"pid": pid, "code": code, "reason": found.message,
                             "since": time.time()}  # fmt: skip
            say(f"{self._instance.name} (pid {pid}): {found.message}")
        elif not found:
            self._symptom = {}
        past = {key: self._written[key] for key in ("restarted", "at") if key in self._written}
        self._write(past | self._symptom)

    def _write(self, content: dict[str, Any]) -> None:
        if content == self._written:
            return
        if not self._file.parent.is_dir():
            # The workspace was removed: don't create it again.
            return
        if content:
            files.write_receipt(self._file, content)
        else:
            files.remove(self._file)
        self._written = content

    def _restart(self, pid: int, found: Condition) -> None:
        self._retry_at = time.monotonic() + RETRY_AFTER
        if pm2.restart(self._settings.layout, self._instance.name, pid, found.message):
            say(f"{self._instance.name} (pid {pid}) was restarted: {found.message}")
            self._symptom = {}
            self._write({"restarted": found.message, "at": time.time()})
        else:
            say(f"{self._instance.name} (pid {pid}) can't be restarted: PM2 doesn't supervise it")


class ServerWatch:
    """The health server: restarts it after too long without a good answer."""

    def __init__(self, settings: Settings, census: Census) -> None:
        self._settings = settings
        self._census = census
        self._pid = 0
        self._since = 0.0

    def step(self) -> None:
        found, server, now = self._census.find(apps.SERVER), self._settings.server, time.monotonic()
        pid = found.app.pid if found else 0
        if server is None or pid != self._pid:
            self._pid, self._since = pid, now
        if server is None or not pid:
            return
        address = health_client.Server(self._settings.workspace, token=None, **server)
        answer = health_client.ask(address, "/livez", api.PROBE_TIMEOUT)
        if answer and answer[0] == 200:
            self._since = now
        elif now - self._since >= self._settings.limits.hung:
            self._since = now
            why = f"it gave no good answer for {self._settings.limits.hung:g} s"
            if pm2.restart(self._settings.layout, apps.SERVER, pid, why):
                say(f"{apps.SERVER} (pid {pid}) was restarted: {why}")


def _repeat(what: str, step: Callable[[], None], every: float) -> None:
    """Call `step` for ever; log each new error once."""
    logged = ""
    while True:
        try:
            step()
            logged = ""
        except Exception as error:
            text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            if text != logged:
                say(f"{what}: {text}")
            logged = text
        time.sleep(every)


def _tend_logs(settings: Settings, masks: LogMasks) -> None:
    masks.step()
    log_rotation.mend(settings.layout)
    for name in log_rotation.rotate(settings.layout, settings.logs):
        say(f"{name} was rotated")


def main(file: Path) -> None:
    settings = read_settings(file)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    census = Census(settings.workspace, settings.every)
    tend_logs = partial(_tend_logs, settings, LogMasks(settings.layout))
    work: list[tuple[str, Callable[[], None]]] = [
        ("logs", tend_logs),
        ("heartbeat", lambda: heartbeat.beat(settings.workspace)),
    ]
    serving: Serving = {}
    for instance in settings.instances:
        work.append((instance.name, Watch(settings, instance, census, serving).step))
    for worker in settings.workers:
        rules = settings.limits
        watch = WorkerWatch(
            settings.layout, worker, serving, census,
            hung=rules.hung, start_timeout=rules.start_timeout,
        )  # fmt: skip
        work.append((worker.name, watch.step))
    for each in settings.services:
        follow = ServiceWatch(settings.layout, each, census, settings.limits.hung)
        work.append((each.name, follow.step))
    work.append((apps.SERVER, ServerWatch(settings, census).step))
    if settings.cards:
        gpus = gpu_watch.GpuWatch(
            settings.layout, settings.cards, pinned=settings.pinned, acts=settings.restart
        )
        work.append(("GPUs", gpus.step))
    for what, step in work:
        # Daemon threads: a slow restart must not keep this process from ending.
        arguments = (what, step, settings.every)
        threading.Thread(target=_repeat, args=arguments, daemon=True).start()
    heartbeat.beat(settings.workspace)
    files.write_receipt(file.with_suffix(".ready.json"), {"pid": os.getpid()})
    stop.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
