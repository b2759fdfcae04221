"""Instances: those that left or changed are stopped, then each is started under PM2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks import links, watcher
from tasks import pm2 as configs
from tasks.engine.step import Task, group, step
from tasks.host import apps, files, pm2, ports
from tasks.host.failure import Failure
from tasks.spec import Instance, Machine
from tasks.spec.layout import Layout


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    yield group("instances", "One ComfyUI instance per GPU, started")
    yield step(
        "instances:stop",
        "Stop what left machine.yaml or changed",
        check=partial(_to_stop, machine, instances),
        action=partial(_stop, machine, instances),
        foresee=partial(_foresee_stop, machine, instances),
        log=layout.log("instances:stop"),
        after=["pm2"],
    )
    for instance in instances:
        yield step(
            f"instances:gpu{instance.gpu}",
            f"{instance.name} on port {instance.port}",
            check=partial(_not_started, machine, instance),
            action=partial(_start, layout, instance),
            foresee=partial(_foresee_start, layout, instance),
            log=layout.log(f"instances:gpu{instance.gpu}"),
            after=["instances:stop", "directories"],
        )


def _not_started(machine: Machine, instance: Instance) -> str | None:
    if machine.overlay and links.swaps(machine):
        # A run has changed them by now, a plan has not.
        return f"{instance.name} is restarted"
    return not_running(machine.layout, instance.gpu, instance.name)


def not_running(layout: Layout, gpu: int, name: str) -> str | None:
    """None when the app runs under PM2 as its config wants it, else a sentence."""
    wanted = configs.fingerprint(layout, gpu, name)
    for app in apps.running(layout.workspace, pm2.daemon(layout)):
        if app.name == name and app.fingerprint == wanted and app.supervised:
            return None
    return f"{name} doesn't run as its config says"


def _wanted(machine: Machine, instances: Sequence[Instance]) -> dict[str, str | None]:
    """Name → fingerprint of everything that is to run."""
    layout = machine.layout
    ours = {
        name: configs.fingerprint(layout, instance.gpu, name)
        for instance in instances
        for name in (
            instance.name,
            *(configs.worker_name(worker, instance) for worker in machine.workers),
        )
    }
    return ours | ({watcher.NAME: watcher.fingerprint(layout)} if instances else {})


def _stale(machine: Machine, instances: Sequence[Instance]) -> list[apps.App]:
    wanted = _wanted(machine, instances)
    layout = machine.layout
    names = {instance.name for instance in instances} if links.swaps(machine) else set()
    return [
        app
        for app in apps.running(layout.workspace, pm2.daemon(layout))
        if not app.supervised or wanted.get(app.name) != app.fingerprint or app.name in names
    ]


def _retired_configs(layout: Layout, instances: Sequence[Instance]) -> list[str]:
    gpus = {f"gpu{instance.gpu}" for instance in instances}
    return sorted({path.name.split(".")[0] for path in layout.apps.glob("gpu*.json")} - gpus)


def _to_stop(machine: Machine, instances: Sequence[Instance]) -> str | None:
    names = [app.name for app in _stale(machine, instances)]
    names += _retired_configs(machine.layout, instances)
    if swapped := sorted(links.swaps(machine)):
        return f"{', '.join(swapped)}, which instances have listed, points elsewhere"
    return f"{', '.join(names)} left or changed" if names else None


def _foresee_stop(machine: Machine, instances: Sequence[Instance], log: Path) -> list[str]:
    wanted = _wanted(machine, instances)
    return [
        f"{'restart' if app.name in wanted else 'stop'} {app.name} (pid {app.pid})"
        for app in _stale(machine, instances)
    ]


def _stop(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    layout = machine.layout
    stale = _stale(machine, instances)
    # Somebody may run apps of their own in this PM2; ours end in -gpuN.
    known = {name for name in pm2.apps(layout) if re.search(r"-gpu\d+$", name)}
    pm2.delete(layout, {app.name for app in stale if app.supervised} | (
        known - set(_wanted(machine, instances))
    ))  # fmt: skip
    for app in stale:
        if not app.supervised:
            apps.end(app)
    links.swap(machine)
    for gpu in _retired_configs(layout, instances):
        for path in layout.apps.glob(f"{gpu}.*json"):
            files.remove(path)


def _foresee_start(layout: Layout, instance: Instance, log: Path) -> list[str]:
    _refuse_held_port(layout, instance)
    return []


def _refuse_held_port(layout: Layout, instance: Instance) -> None:
    """Raises Failure, naming the holder, when somebody else has the instance's port."""
    ours = {app.pid for app in apps.running(layout.workspace, None) if app.name == instance.name}
    held = ports.holder(instance.port)
    if held and held.pid not in ours:
        raise Failure(
            f"{instance.name} can't start: {held}; stop that, or choose another "
            "instances.port_start"
        )


def _start(layout: Layout, instance: Instance, log: Path) -> None:
    _refuse_held_port(layout, instance)
    pm2.start(layout, configs.config_of(layout, instance.gpu), instance.name)
