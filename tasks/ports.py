"""The port of each instance, decided before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .engine.messages import tell
from .engine.step import Task, step
from .host.pm2 import apps, pm2
from .host.system import files, port_holders
from .host.system.failure import Failure
from .spec import Instance, Machine


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "ports",
        "The port of each instance, decided before anything starts",
        check=partial(_undecided, machine, instances),
        action=partial(_decide, machine, instances),
        foresee=partial(_foresee, machine, instances),
        log=machine.layout.log("ports"),
        after=["directories", "gpus"],
    )


def port_of(machine: Machine, instance: Instance) -> int:
    """The port decided for an instance; the one of machine.yaml while that stands.

    It is what an instance will be started with. A running one has its own in its environment,
    `apps.App.port`.
    """
    decided = _decided(machine).get(instance.name, {})
    if decided.get("wanted") == instance.port and machine.instances.port_conflict == "next":
        return int(decided["port"])
    return instance.port


def _decided(machine: Machine) -> dict[str, dict[str, int]]:
    """Name → the port that machine.yaml wants and the one that was taken."""
    layout = machine.layout
    found: dict[str, dict[str, int]] = files.read_receipt(
        layout.seen(layout.ports), instances=dict
    ).get("instances", {})
    return found


def _record(machine: Machine, instances: Sequence[Instance]) -> dict[str, dict[str, int]]:
    return {
        instance.name: {"wanted": instance.port, "port": port_of(machine, instance)}
        for instance in instances
    }


def _undecided(machine: Machine, instances: Sequence[Instance]) -> str | None:
    decided = _decided(machine)
    if any(decided.get(name) != each for name, each in _record(machine, instances).items()):
        return "machine.yaml wants other ports"
    there = {app.name: app.port for app in pm2.running(machine.layout)}
    # Whoever runs on its port has it, and need not be asked for.
    starting = [i for i in instances if there.get(i.name) != port_of(machine, i)]
    if not starting:
        return None
    strangers = _strangers(machine)
    for instance in starting:
        if held := strangers.get(port_of(machine, instance)):
            return f"{held}, {instance.name} wants it"
    return None


def _strangers(machine: Machine) -> dict[int, port_holders.Holder]:
    """Ports that others hold. Our own instances leave theirs, or have it already."""
    ours = apps.family(machine.workspace)
    return {port: held for port, held in port_holders.holders().items() if held.pid not in ours}


def _choose(machine: Machine, instances: Sequence[Instance]) -> dict[str, dict[str, int]]:
    """Raises Failure when a port is held, or none is free above it.

    What instances had that are not to run now is remembered: they may come again.
    """
    strangers = _strangers(machine)
    taken = {instance.port: instance.name for instance in instances}
    record = _decided(machine)
    for instance in instances:
        port = port_of(machine, instance)
        held = strangers.get(port)
        if held and machine.instances.port_conflict == "fail":
            raise Failure(
                f"{instance.name} can't start: {held}; stop that, choose another "
                "instances.port_start, or set instances.port_conflict: next"
            )
        if held or taken.get(port, instance.name) != instance.name:
            above = range(instance.port, 65536)
            port = next((p for p in above if p not in strangers and p not in taken), 0)
            if not port:
                raise Failure(f"{instance.name} can't start: no port from {instance.port} is free")
            tell(f"{instance.name} takes port {port}: {held or f'{instance.port} is taken'}")
        taken[port] = instance.name
        record[instance.name] = {"wanted": instance.port, "port": port}
    return record


def _foresee(machine: Machine, instances: Sequence[Instance], log: Path) -> list[str]:
    layout = machine.layout
    record = _choose(machine, instances)
    files.write_receipt(layout.kept(layout.ports), {"instances": record})
    return []


def _decide(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    files.write_receipt(machine.layout.ports, {"instances": _choose(machine, instances)})
