"""The port of each instance, decided before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.pm2 import apps, pm2
from .host.system import files, port_holders
from .host.system.failure import Failure
from .spec import Instance


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "ports",
        "The port of each instance, decided before anything starts",
        check=partial(_why_undecided, run),
        action=partial(_decide, run),
        preview=partial(_preview, run),
        after=["directories", "gpus"],
    )


def port_of(run: Run, instance: Instance) -> int:
    """The port that an instance will start with: machine.yaml's, or the next free one.

    A running instance has its own in its environment, `apps.App.port`.
    """
    decided = _read_decisions(run).get(instance.name, {})
    if decided.get("wanted") == instance.port and run.machine.instances.port_conflict == "next":
        return int(decided["port"])
    return instance.port


def _read_decisions(run: Run) -> dict[str, dict[str, int]]:
    """Instance → `wanted`, machine.yaml's port, and `port`, the one it gets."""
    layout = run.layout
    found: dict[str, dict[str, int]] = files.read_receipt(
        layout.read_path(layout.ports), instances=dict
    ).get("instances", {})
    return found


def _decisions(run: Run) -> dict[str, dict[str, int]]:
    return {
        instance.name: {"wanted": instance.port, "port": port_of(run, instance)}
        for instance in run.instances
    }


def _why_undecided(run: Run) -> str | None:
    decided = _read_decisions(run)
    if any(decided.get(name) != each for name, each in _decisions(run).items()):
        return "machine.yaml wants other ports"
    current = {app.name: app.port for app in pm2.running(run.layout)}
    # An instance that runs on its port needs no check.
    starting = [i for i in run.instances if current.get(i.name) != port_of(run, i)]
    if not starting:
        return None
    held_by_others = _held_by_others(run)
    for instance in starting:
        if held := held_by_others.get(port_of(run, instance)):
            return f"{held}, but {instance.name} needs it"
    return None


def _held_by_others(run: Run) -> dict[int, port_holders.Holder]:
    ours = apps.family(run.machine.workspace)
    return {port: held for port, held in port_holders.holders().items() if held.pid not in ours}


def _choose(run: Run) -> dict[str, dict[str, int]]:
    """Choose a port for each instance. Raises Failure when one is taken and none above is free.

    Instances that aren't declared now keep their record, for when they return.
    """
    held_by_others = _held_by_others(run)
    taken = {instance.port: instance.name for instance in run.instances}
    record = _read_decisions(run)
    for instance in run.instances:
        port = port_of(run, instance)
        held = held_by_others.get(port)
        if held and run.machine.instances.port_conflict == "fail":
            raise Failure(
                f"{instance.name} can't start: {held}; stop that, choose another "
                "instances.port_start, or set instances.port_conflict: next"
            )
        if held or taken.get(port, instance.name) != instance.name:
            above = range(instance.port, 65536)
            port = next((p for p in above if p not in held_by_others and p not in taken), 0)
            if not port:
                raise Failure(f"{instance.name} can't start: no port from {instance.port} is free")
            run.tell(f"{instance.name} takes port {port}: {held or f'{instance.port} is taken'}")
        taken[port] = instance.name
        record[instance.name] = {"wanted": instance.port, "port": port}
    return record


def _preview(run: Run, log: Path) -> list[str]:
    layout = run.layout
    record = _choose(run)
    files.write_receipt(layout.write_path(layout.ports), {"instances": record})
    return []


def _decide(run: Run, log: Path) -> None:
    files.write_receipt(run.layout.ports, {"instances": _choose(run)})
