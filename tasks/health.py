"""Health: each instance passes the gate; the process that did is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import server
from .engine.run import Run
from .engine.step import Task, group, step
from .generation import last_good
from .host.comfyui import warmup
from .host.system.failure import Failure
from .instances import gate, roll
from .spec import Instance

SERVER_WAIT = 5
"""Seconds in which the health server must report an instance as healthy after the gate."""


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    yield group("health", "Every instance answers and is healthy")
    for instance in instances:
        yield step(
            run,
            f"health:gpu{instance.gpu}",
            f"{instance.name} is healthy",
            check=partial(_why_not_healthy, run, instance),
            action=partial(_wait, run, instance),
            after=["instances"],
        )


def _why_not_healthy(run: Run, instance: Instance) -> str | None:
    wanted = last_good.wanted_fingerprints(run, [instance]).get(instance.name)
    app = gate.find(run, instance.name)
    if wanted is None and last_good.refusal(run):
        return None
    if app is None:
        return f"{instance.name} isn't running"
    if app.fingerprint != wanted:
        return f"{instance.name} runs with another config"
    if run.overlay and roll.must_stop_all(run):
        # A run has restarted them at this point, a plan has not.
        return f"{instance.name} restarts"
    if not gate.is_warm(run, instance, app):
        return warmup.NOT_YET
    if not gate.passed(run, instance, app):
        return f"{instance.name} has restarted since"
    health = gate.probe(instance, app)
    return server.unhealthy_reason(run, instance, app.pid) if health.healthy else health.reason


def _wait(run: Run, instance: Instance, log: Path) -> None:
    """Raises Failure, as `gate.wait` does, and when the health server reports it unhealthy."""
    gate.wait(run, [instance], time.monotonic())
    gate.note(run, instance)
    app = gate.find(run, instance.name)
    if app and (wrong := server.unhealthy_reason(run, instance, app.pid, SERVER_WAIT)):
        raise Failure(f"{instance.name}: {wrong}", run.layout.log(instance.name))
