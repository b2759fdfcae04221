"""Workers, one of each per instance; they start when their instance is healthy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, group, step
from .generation import last_good
from .host.comfyui import api
from .host.pm2 import endings, pm2
from .host.system.failure import Failure
from .instances import gate, roll
from .pm2 import stage as configs
from .pm2 import start
from .spec import Instance
from .spec.job_checks import WORKER

MUST_LIVE = 1.0
"""Seconds that a worker must run to count as started."""


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    yield group("workers", "Workers, started when their instance is healthy")
    needs = {WORKER: ["jobs"]} if run.machine.wanted_jobs else {}
    for instance in instances:
        for worker in configs.workers_of(run, instance):
            name = configs.worker_name(worker, instance)
            yield step(
                run,
                f"workers:{name}",
                f"{name}, for {instance.name}",
                check=partial(_why_not_running, run, instance, name),
                action=partial(_start, run, instance, name),
                after=[f"health:gpu{instance.gpu}", *needs.get(worker.name, ())],
            )


def _why_not_running(run: Run, instance: Instance, name: str) -> str | None:
    wanted = last_good.wanted_fingerprints(run, [instance]).get(name)
    app = gate.find(run, name)
    if app and app.supervised and app.fingerprint == wanted:
        return None
    if wanted is None and last_good.refusal(run):
        return None
    if run.overlay and name in roll.replaced_workers(run, roll.due(run, [instance])):
        # A run has replaced it together with its instance at this point, a plan has not.
        return None
    return f"{name} isn't running with its current config"


def _start(run: Run, instance: Instance, name: str, log: Path) -> None:
    layout = run.layout
    start.start(run, [app for app in last_good.apps_of(run, instance.gpu) if app["name"] == name])
    before: set[int] = set()
    deadline = time.monotonic() + MUST_LIVE
    while time.monotonic() < deadline:
        running = pm2.running(layout)
        now = {app.pid for app in running if app.name == name}
        if before and now != before:
            break
        before = now
        time.sleep(api.POLL)
    else:
        if before:
            return
    app_log = layout.logs / f"{name}.log"
    ending = endings.settled(layout, name, None)
    why = ending.gist if ending else "no output"
    raise Failure(f"{name} exited at once: {why}", app_log)
