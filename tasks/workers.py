"""Workers, each once per instance, behind the gate of that instance's health."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks import pm2 as configs
from tasks.engine.step import Task, group, step
from tasks.host import apps, blame, comfyui, pm2
from tasks.host.failure import Failure
from tasks.instances import not_running
from tasks.spec import Instance, Machine
from tasks.spec.layout import Layout

SETTLE = 1.0
"""Seconds that a worker must live before it counts as started."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    yield group("workers", "Workers, each behind its instance")
    for instance in instances:
        for worker in machine.workers:
            name = configs.worker_name(worker, instance)
            gpu = instance.gpu
            yield step(
                f"workers:{name}",
                f"{name}, behind {instance.name}",
                check=partial(not_running, layout, gpu, name),
                action=partial(_start, layout, gpu, name),
                log=layout.log(f"workers:{name}"),
                after=[f"health:gpu{gpu}"],
            )


def _start(layout: Layout, gpu: int, name: str, log: Path) -> None:
    pm2.start(layout, configs.config_of(layout, gpu), name)
    seen: set[int] = set()
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        running = apps.running(layout.workspace, pm2.daemon(layout))
        now = {app.pid for app in running if app.name == name}
        if seen and now != seen:
            break
        seen = now
        time.sleep(comfyui.POLL)
    else:
        if seen:
            return
    said = layout.logs / f"{name}.log"
    raise Failure(f"{name} died at once: {blame.gist(said)}", said)
