"""Health: each instance passes the gate, and which process did is noted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from . import server
from .engine.step import Task, group, step
from .generation import last_good
from .host.comfyui import warmup
from .host.system.failure import Failure
from .instances import gate, roll
from .spec import Instance, Machine

SEEN = 5
"""Seconds in which the health server must find one healthy that has passed the gate."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    yield group("health", "Every instance answers and is healthy")
    for instance in instances:
        yield step(
            f"health:gpu{instance.gpu}",
            f"{instance.name} is healthy",
            check=partial(_unhealthy, machine, instance),
            action=partial(_pass, machine, instance),
            log=layout.log(f"health:gpu{instance.gpu}"),
            after=["instances"],
        )


def _unhealthy(machine: Machine, instance: Instance) -> str | None:
    wanted = last_good.wanted(machine, [instance]).get(instance.name)
    app = gate.find(machine, instance.name)
    if wanted is None and last_good.refusal(machine):
        return None
    if app is None:
        return f"{instance.name} doesn't run"
    if app.fingerprint != wanted:
        return f"{instance.name} doesn't run as its config says"
    if machine.overlay and roll.together(machine):
        # A run has restarted them by now, a plan has not.
        return f"{instance.name} is restarted"
    if not gate.is_warm(machine, instance, app):
        return warmup.NOT_YET
    if not gate.passed(machine, instance, app):
        return f"{instance.name} was started anew"
    health = gate.probe(instance, app)
    return server.complaint(machine, instance, app.pid) if health.healthy else health.reason


def _pass(machine: Machine, instance: Instance, log: Path) -> None:
    """Raises Failure, as `gate.wait` does, and when the health server doesn't find it healthy."""
    gate.wait(machine, [instance], time.monotonic())
    gate.note(machine, instance)
    app = gate.find(machine, instance.name)
    if app and (wrong := server.complaint(machine, instance, app.pid, SEEN)):
        raise Failure(f"{instance.name}: {wrong}", machine.layout.log(instance.name))
