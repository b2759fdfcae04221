"""A roll: instances that changed are replaced in turns, each drained first.

What serves nothing comes first and together, as at a first boot; then those that serve, one by one,
each healthy before the next. So of two or more, one always serves.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Collection, Sequence

from ..engine.run import Run
from ..generation import last_good
from ..host.comfyui import api
from ..host.pm2 import apps, pm2
from ..host.system import files, process
from ..links import stage as links
from ..spec import Instance
from . import gate

SILENCE = 30.0
"""Seconds without an answer after which an instance has no jobs worth waiting for."""


def together(run: Run) -> bool:
    """Whether all have to be stopped at once, since folders that they have listed change."""
    return bool(links.swaps(run))


def due(run: Run, instances: Sequence[Instance]) -> list[Instance]:
    """The instances that don't run as they should."""
    there = {app.name: app.fingerprint for app in _running(run)}
    wanted = last_good.wanted(run, instances)
    every = together(run)
    return [
        instance
        for instance in instances
        if instance.name in wanted and (every or there.get(instance.name) != wanted[instance.name])
    ]


def workers(run: Run, instances: Sequence[Instance]) -> list[str]:
    """Workers whose configuration changed; they are replaced with their instance."""
    wanted = last_good.wanted(run, instances)
    there = {app.name: app.fingerprint for app in _running(run)}
    names = wanted.keys() & there.keys() - {instance.name for instance in instances}
    return sorted(name for name in names if wanted[name] != there[name])


def left_over(run: Run, instances: Sequence[Instance]) -> list[Instance]:
    """Instances that a killed run left marked as draining."""
    return [i for i in instances if run.layout.draining(i.gpu).exists()]


def roll(run: Run, instances: Sequence[Instance], due: Sequence[Instance], *, proved: bool) -> None:
    """Replace those of the instances that are due, in turns, with workers that changed too.

    `proved` waits for the last turn as well. Raises Failure when a turn doesn't become
    healthy; later turns are then untouched.
    """
    left = list(due)
    while left:
        turn = _turn(run, left)
        if _serves(run, turn):
            _admit(run, [instance for instance in instances if instance not in left])
        left = [instance for instance in left if instance not in turn]
        begin = _replace(run, turn)
        try:
            if left or proved:
                gate.wait(run, turn, begin)
        finally:
            for instance in turn:
                files.remove(run.layout.draining(instance.gpu))


def settle(run: Run, instances: Sequence[Instance], due: Sequence[Instance]) -> None:
    """Roll, and note that they passed the gate. Raises Failure as `roll` does."""
    roll(run, instances, due, proved=True)
    for instance in due:
        gate.note(run, instance)


def _admit(run: Run, instances: Sequence[Instance]) -> None:
    """Before one that serves is taken down, the others pass the gate.

    A killed run may have started some that never passed the gate.
    """
    there = {app.name: app for app in _running(run)}
    for instance in instances:
        app = there.get(instance.name)
        if app and not gate.passed(run, instance, app):
            gate.wait(run, [instance], time.monotonic())


def _serves(run: Run, turn: Sequence[Instance]) -> bool:
    there = {app.name: app for app in _running(run)}
    return any(i.name in there and gate.probe(i, there[i.name]).healthy for i in turn)


def _running(run: Run) -> list[apps.App]:
    layout = run.layout
    return [a for a in pm2.running(layout) if a.supervised]


def _turn(run: Run, left: Sequence[Instance]) -> list[Instance]:
    """The next to replace. One waits for a port that another of ours still holds."""
    if together(run):
        return list(left)
    there = {app.name: app for app in _running(run)}
    held = {app.port: app.name for app in there.values() if app.port}
    free = [i for i in left if held.get(_port(run, i), i.name) == i.name]
    health = {i.name: gate.probe(i, there[i.name]) for i in free if i.name in there}
    if idle := [i for i in free if i.name not in health or health[i.name].refused]:
        return idle
    # One that listens may be silent because it loads a checkpoint.
    silent = [i for i in free if not health[i.name].healthy]
    # Instances that swap ports in a circle are replaced together.
    return silent[:1] or free[:1] or list(left)


def _port(run: Run, instance: Instance) -> int:
    for app in last_good.apps_of(run, instance.gpu):
        if app["name"] == instance.name:
            return int(app["env"][apps.PORT])
    return instance.port


def _replace(run: Run, turn: Sequence[Instance]) -> float:
    """Drain, stop and start; when they were started (monotonic, seconds)."""
    layout = run.layout
    drain(run, turn)
    names = {instance.name for instance in turn} | set(workers(run, turn))
    wanted = [app for i in turn for app in last_good.apps_of(run, i.gpu) if app["name"] in names]
    if together(run):
        pm2.delete(layout, names)
        links.swap(run)
    begin = time.monotonic()
    pm2.start(layout, wanted)
    return begin


def drain(run: Run, instances: Collection[Instance]) -> None:
    """Mark instances as draining and wait until they have no job, at most `drain_timeout` s.

    The caller removes the marks.
    """
    there = {app.name: app for app in _running(run)}
    waiting = [instance for instance in instances if instance.name in there]
    for instance in instances:
        mark = run.layout.draining(instance.gpu)
        # Also when a signal ends this run, which ends no thread in order.
        atexit.register(files.remove, mark)
        files.write_receipt(mark, {"run": process.RUN_ID})
    begin = time.monotonic()
    heard = {instance.name: begin for instance in waiting}
    said: dict[str, int] = {}
    while waiting:
        for instance in list(waiting):
            health, now = gate.probe(instance, there[instance.name]), time.monotonic()
            jobs, late = health.queue, now - begin > run.machine.instances.drain_timeout
            if jobs is None:
                if health.refused or late or now - heard[instance.name] > SILENCE:
                    waiting.remove(instance)
                continue
            heard[instance.name] = now
            if jobs == 0:
                waiting.remove(instance)
            elif late:
                run.say(
                    f"{instance.name} still had {_count(jobs)} after "
                    f"{run.machine.instances.drain_timeout} s (instances.drain_timeout)"
                )
                waiting.remove(instance)
            elif said.get(instance.name) != jobs:
                said[instance.name] = jobs
                run.say(f"{instance.name} is restarted once it has done {_count(jobs)}")
        time.sleep(api.POLL if waiting else 0)


def _count(jobs: int) -> str:
    return f"{jobs} job" if jobs == 1 else f"{jobs} jobs"
