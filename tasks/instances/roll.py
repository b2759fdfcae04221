"""A rolling restart: replace instances in turns, each drained first.

Those that serve nothing come first and together, as at a first boot; then the others one by one,
each healthy before the next. So of two or more instances, one always serves.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from ..engine.run import Run
from ..generation import last_good
from ..host.pm2 import apps, pm2
from ..host.system import files
from ..links import stage as links
from ..pm2 import stage as configs
from ..pm2 import start
from ..spec import Instance
from . import gate
from .drain import drain


def must_stop_all(run: Run) -> bool:
    """Whether all instances must stop at once, since links to folders that they use change."""
    return bool(links.folder_link_changes(run))


def due(run: Run, instances: Sequence[Instance]) -> list[Instance]:
    """The instances that must start or restart."""
    running, wanted = _running(run), last_good.wanted_fingerprints(run, instances)
    declared = [instance for instance in instances if instance.name in wanted]
    if must_stop_all(run):
        return declared
    return [i for i in declared if not _runs_as(running.get(i.name), wanted[i.name])]


def _runs_as(app: apps.App | None, fingerprint: str) -> bool:
    return app is not None and app.fingerprint == fingerprint


def replaced_workers(run: Run, instances: Sequence[Instance]) -> list[str]:
    """Running workers that are stopped before these instances are replaced, and started after:
    those with another config, and those that restart with their instance."""
    wanted = last_good.wanted_fingerprints(run, instances)
    running = _running(run)
    restarting = {
        configs.worker_name(worker, instance)
        for instance in instances
        for worker in configs.workers_of(run, instance)
        if worker.per == "instance" and worker.restart_with_instance
    }
    names = wanted.keys() & running.keys() - {instance.name for instance in instances}
    return sorted(
        name for name in names if name in restarting or not _runs_as(running[name], wanted[name])
    )


def left_draining(run: Run) -> list[Instance]:
    """Instances that a killed run left marked as draining."""
    return [i for i in run.instances if run.layout.draining(i.gpu).exists()]


def roll(run: Run, due: Sequence[Instance], *, wait_for_last: bool) -> None:
    """Replace the instances in `due` in turns, with the workers that restart with them.

    `wait_for_last` waits for the last turn too. Raises Failure when a turn doesn't become
    healthy; later turns are then untouched.
    """
    left = list(due)
    while left:
        turn = _next_turn(run, left)
        if _serves(run, turn):
            _wait_for_others(run, [instance for instance in run.instances if instance not in left])
        left = [instance for instance in left if instance not in turn]
        workers, begin = _replace(run, turn)
        try:
            if left or wait_for_last:
                gate.wait(run, turn, begin)
                _start_workers(run, turn, workers)
        finally:
            for instance in turn:
                files.remove(run.layout.draining(instance.gpu))


def roll_and_record(run: Run, due: Sequence[Instance]) -> None:
    """Roll, and record that they passed the gate. Raises Failure as `roll` does."""
    roll(run, due, wait_for_last=True)
    for instance in due:
        gate.note(run, instance)
    running = _running(run)
    for name in last_good.wanted_fingerprints(run, due).keys() - running:
        # A turn that failed has left its workers stopped.
        _start_workers(run, due, {name})


def _wait_for_others(run: Run, instances: Sequence[Instance]) -> None:
    """Wait until these pass the gate, before one that serves is stopped.

    A killed run may have started them and never waited for them.
    """
    running = _running(run)
    for instance in instances:
        app = running.get(instance.name)
        if app and not gate.passed(run, instance, app):
            gate.wait(run, [instance], time.monotonic())


def _serves(run: Run, turn: Sequence[Instance]) -> bool:
    running = _running(run)
    return any(i.name in running and gate.probe(i, running[i.name]).healthy for i in turn)


def _running(run: Run) -> dict[str, apps.App]:
    """The running apps that PM2 supervises, by name."""
    return {app.name: app for app in pm2.running(run.layout) if app.supervised}


def _next_turn(run: Run, left: Sequence[Instance]) -> list[Instance]:
    """The next instances to replace; not those whose new port another of ours still holds."""
    if must_stop_all(run):
        return list(left)
    running = _running(run)
    held = {app.port: app.name for app in running.values() if app.port}
    free = [i for i in left if held.get(_port(run, i), i.name) == i.name]
    health = {i.name: gate.probe(i, running[i.name]) for i in free if i.name in running}
    if idle := [i for i in free if i.name not in health or health[i.name].refused]:
        return idle
    # An instance that listens but doesn't answer may be loading a checkpoint.
    silent = [i for i in free if not health[i.name].healthy]
    # Instances that swap ports in a circle are replaced together.
    return silent[:1] or free[:1] or list(left)


def _port(run: Run, instance: Instance) -> int:
    for app in last_good.apps_of(run, instance.gpu):
        if app["name"] == instance.name:
            return int(app["env"][apps.PORT])
    return instance.port


def _replace(run: Run, turn: Sequence[Instance]) -> tuple[list[str], float]:
    """Stop workers, drain, stop and start; return the stopped workers, and the time of the start
    (monotonic, seconds)."""
    layout = run.layout
    # Before the drain, which refuses new jobs: a worker that doesn't know the mark would fetch one
    # from its queue, and fail with it.
    workers = replaced_workers(run, turn)
    pm2.delete(layout, set(workers), "replaced")
    drain(run, turn)
    names = {instance.name for instance in turn}
    if must_stop_all(run):
        pm2.delete(layout, names, "replaced")
        links.change_folder_links(run)
    begin = time.monotonic()
    run.doing(f"PM2 starts {', '.join(sorted(names))}")
    start.start(run, _wanted(run, turn, names))
    return workers, begin


def _start_workers(run: Run, instances: Sequence[Instance], names: Collection[str]) -> None:
    if found := _wanted(run, instances, names):
        start.start(run, found)


def restart_workers(run: Run, names: Collection[str]) -> None:
    """Restart workers with the config that they should have."""
    _start_workers(run, run.instances, names)


def _wanted(
    run: Run, instances: Sequence[Instance], names: Collection[str]
) -> list[dict[str, Any]]:
    """The apps of these names in the configs of instances."""
    wanted = [app for each in instances for app in last_good.apps_of(run, each.gpu)]
    return [app for app in wanted if app["name"] in names]
