"""Instances: stop what left machine.yaml, start missing ones, replace changed ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import ports
from ..engine.run import Run
from ..engine.step import Task, group, step
from ..generation import last_good
from ..host.pm2 import apps, pm2
from ..host.system import files
from ..host.system.failure import Failure
from ..links import stage as links
from ..pm2 import job_programs
from ..spec import Instance
from . import roll
from .drain import drain


def tasks(run: Run) -> Iterator[Task]:
    yield group("instances", "One ComfyUI instance per GPU, started or replaced")
    yield step(
        run,
        "instances:stop",
        "Stop what left machine.yaml, and orphans",
        check=partial(_reason_to_stop, run),
        action=partial(_stop, run),
        preview=partial(_preview_stop, run),
        after=["pm2", "directories"],
    )
    yield step(
        run,
        "instances:start",
        "Start missing instances together; replace changed ones one by one",
        check=partial(_reason_to_start, run),
        action=partial(_start, run),
        preview=partial(_preview_start, run),
        after=["instances:stop"],
    )


def _leaving(run: Run) -> list[apps.App]:
    wanted = set(last_good.wanted_fingerprints(run, run.instances))
    wanted |= {apps.SERVER, *({apps.WATCHER} if run.instances else ())}
    wanted |= {*job_programs.names(run)}
    layout = run.layout
    return [app for app in pm2.running(layout) if not app.supervised or app.name not in wanted]


def _gpu(app: apps.App) -> int | None:
    """The GPU of an instance that PM2 supervises; None for orphans, which need no draining."""
    found = re.fullmatch(rf"{apps.INSTANCES}(\d+)", app.name)
    return int(found[1]) if found and app.supervised else None


def _unneeded_configs(run: Run) -> list[str]:
    """GPUs ("gpu0") whose config is no longer needed."""
    gpus = {f"gpu{instance.gpu}" for instance in run.instances}
    return sorted({path.name.split(".")[0] for path in run.layout.apps.glob("gpu*.json")} - gpus)


def _reason_to_stop(run: Run) -> str | None:
    names = [app.name for app in _leaving(run)]
    names += _unneeded_configs(run)
    if names:
        return f"{', '.join(dict.fromkeys(names))} left machine.yaml, or PM2 lost it"
    left = pm2.look(run.layout).left
    return f"{left[0].app} left a process behind (pid {left[0].pid})" if left else None


def _preview_stop(run: Run, log: Path) -> list[str]:
    lines = [f"stop {app.name} (pid {app.pid})" for app in _leaving(run)]
    left = pm2.look(run.layout).left
    return lines + [f"end what {each.app} left behind (pid {each.pid})" for each in left]


def _stop(run: Run, log: Path) -> None:
    layout = run.layout
    leaving = _leaving(run)
    drained = [run.machine.instance(gpu) for app in leaving if (gpu := _gpu(app)) is not None]
    known = {name for name in pm2.apps(layout) if apps.DECLARED.fullmatch(name)}
    names = {app.name for app in leaving if app.supervised}
    names |= known - set(last_good.wanted_fingerprints(run, run.instances))
    # Workers first, while their instance still takes jobs.
    for several in apps.in_turn(names):
        pm2.delete(layout, several, "removed")
    drain(run, drained)
    pm2.delete(layout, set(filter(apps.is_instance, names)), "removed")
    pm2.delete(layout, names & {apps.JOBS_SERVER}, "removed")
    for app in leaving:
        if not app.supervised:
            pm2.end_orphan(app)
    pm2.end_left(layout)
    for instance in drained:
        files.remove(layout.draining(instance.gpu))
    for name in _unneeded_configs(run):
        for path in layout.apps.glob(f"{name}.*json"):
            files.remove(path)


def stop_cordoned(run: Run, instances: Sequence[Instance]) -> None:
    """Stop instances that left `run.instances`: their workers, then they are drained."""
    own = tuple(f"-gpu{each.gpu}" for each in instances)
    names = {each.name for each in instances}
    # The worker of the whole machine may be in the config of one of these, and keeps running.
    workers = {app.name for app in pm2.running(run.layout) if app.name.endswith(own)} - names
    pm2.delete(run.layout, workers, "cordoned")
    try:
        drain(run, instances)
        pm2.delete(run.layout, names, "cordoned")
    finally:
        for each in instances:
            files.remove(run.layout.draining(each.gpu))


def _reason_to_start(run: Run) -> str | None:
    if roll.must_stop_all(run):
        changed = sorted(links.folder_link_changes(run))
        return f"{', '.join(changed)}, which instances use, has a new target"
    if names := [instance.name for instance in roll.due(run, run.instances)]:
        return f"{', '.join(names)} changed or isn't running"
    if names := [instance.name for instance in roll.left_draining(run)]:
        return f"{', '.join(names)} is still marked as draining"
    return None


def _preview_start(run: Run, log: Path) -> list[str]:
    pids = {app.name: app.pid for app in pm2.running(run.layout) if app.supervised}
    due = roll.due(run, run.instances)
    names = [*(instance.name for instance in due), *roll.replaced_workers(run, due)]
    return [
        f"restart {name} (pid {pids[name]})" if name in pids else f"start {name}" for name in names
    ]


def _start(run: Run, log: Path) -> None:
    """Start and replace instances. Raises Failure if they don't become healthy, after going back
    to the last good generation if there is one."""
    for instance in roll.left_draining(run):
        files.remove(run.layout.draining(instance.gpu))
    if not run.instances:
        links.change_folder_links(run)
    due = roll.due(run, run.instances)
    if due:
        # What PM2 itself lacks is no fault of the generation, nor is a taken port.
        ports.refuse_taken(run, due)
        pm2.raise_unless_startable(run.layout)
    try:
        roll.roll(run, due, wait_for_last=last_good.fallback(run) is not None)
    except Failure as failure:
        back = last_good.refuse(run, str(failure))
        if back is None:
            raise
        # The last good generation may not pass a new warm-up job.
        health = run.machine.health.model_copy(update={"warmup": None})
        again = run.with_machine(run.machine.model_copy(update={"health": health}))
        _return_to_last_good(replace(again, force=False), failure)
        raise Failure(f"{failure}; the machine is back on {back.back}", failure.log) from failure


def _return_to_last_good(run: Run, failure: Failure) -> None:
    """Raises Failure, with both causes, if the last good generation fails too."""
    try:
        start_last_good(run)
    except Failure as second:
        raise Failure(f"{failure}; going back failed too: {second}", second.log) from second


def start_last_good(run: Run) -> None:
    """Run exactly what was good. Raises Failure as `roll.roll_and_record` does."""
    pm2.delete(run.layout, {app.name for app in _leaving(run) if app.supervised}, "removed")
    roll.roll_and_record(run, roll.due(run, run.instances))
