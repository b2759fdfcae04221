"""The port of each instance and of our services, decided before anything is built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.pm2 import apps, pm2
from .host.system import files, port_holders
from .host.system.failure import Failure
from .host.system.program_files import PROGRAM
from .spec import Instance, Jobs

FIELDS = {
    apps.SERVER: "health.port",
    apps.JOBS_SERVER: "jobs.port",
    apps.GATEWAY: "jobs.gateway_port",
}
"""Service of ours → the field with its port."""


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "ports",
        "The port of each instance and of our services, decided before anything is built",
        check=partial(_why_undecided, run),
        action=partial(_decide, run),
        preview=partial(_preview, run),
        after=["directories"],
        first=True,
    )


def port_of(run: Run, instance: Instance) -> int:
    """The port that an instance will start with: machine.yaml's, or the next free one.

    A running instance has its own in its environment, `apps.App.port`.
    """
    return _decided_port(run, _read_decisions(run), instance.name, instance.port)


def health_port(run: Run) -> int:
    """The port of the health server: machine.yaml's, or the next free one."""
    return _decided_port(run, _read_decisions(run), apps.SERVER, run.machine.health.port)


def jobs_port(run: Run, jobs: Jobs) -> int:
    """The port of our NATS server: machine.yaml's, or the next free one."""
    return _decided_port(run, _read_decisions(run), apps.JOBS_SERVER, jobs.port)


def gateway_port(run: Run, jobs: Jobs) -> int:
    """The port of the gateway: machine.yaml's, or the next free one."""
    return _decided_port(run, _read_decisions(run), apps.GATEWAY, jobs.gateway_port)


def refuse_held(name: str, port: int, running: apps.App | None) -> None:
    """Raises Failure when another process than the running one holds the port of a service."""
    holder = port_holders.holders().get(port)
    if holder and not (running and running.pid == holder.pid):
        raise Failure(f"{name} can't start: {holder}; stop that, or choose another {FIELDS[name]}")


def refuse_taken(run: Run, instances: Sequence[Instance]) -> None:
    """Raises Failure when another program has taken a port of these since it was decided."""
    running = {app.name for app in pm2.running(run.layout)}
    ports = {each.name: port_of(run, each) for each in instances if each.name not in running}
    held = _held(ports, _held_by_others(run)) if ports else {}
    if held and run.machine.instances.port_conflict == "next":
        raise Failure(f"{_told(held)}; {PROGRAM} again takes the next free port")
    if held:
        raise Failure(_refusal(held))


Decisions = dict[str, dict[str, int]]
"""App → `wanted`, machine.yaml's port, and `port`, the one it gets."""


def _decided_port(run: Run, record: Decisions, name: str, wanted: int) -> int:
    decided = record.get(name, {})
    if decided.get("wanted") == wanted and run.machine.instances.port_conflict == "next":
        return int(decided["port"])
    return wanted


def _read_decisions(run: Run) -> Decisions:
    layout = run.layout
    receipt = files.read_receipt(layout.read_path(layout.ports), instances=dict)
    server = receipt.get("server")
    found: Decisions = {**receipt.get("instances", {})}
    return found | ({apps.SERVER: server} if isinstance(server, dict) else {})


def _write_decisions(run: Run, record: Decisions) -> None:
    layout = run.layout
    instances = {name: each for name, each in record.items() if name != apps.SERVER}
    server = {"server": record[apps.SERVER]} if apps.SERVER in record else {}
    files.write_receipt(layout.write_path(layout.ports), {"instances": instances, **server})


def _wanted(run: Run) -> dict[str, int]:
    """App → its port in machine.yaml. Our services come first: the health server starts first.

    They aren't among them where their ports must not change and the machine is built: then one of
    them alone fails to start, and instances come up all the same.
    """
    built = os.path.lexists(run.layout.current)
    decided = run.machine.instances.port_conflict == "next" or not built
    ports = {instance.name: instance.port for instance in run.instances}
    return {**_services(run), **ports} if decided else ports


def _services(run: Run) -> dict[str, int]:
    """Service of ours that has a port here → its port in machine.yaml."""
    health, jobs = run.machine.health, run.machine.wanted_jobs
    found = {apps.SERVER: health.port} if health.server else {}
    if jobs and not jobs.url:
        found[apps.JOBS_SERVER] = jobs.port
    if jobs:
        found[apps.GATEWAY] = jobs.gateway_port
    return found


def _why_undecided(run: Run) -> str | None:
    record, ports = _read_decisions(run), {}
    for name, wanted in _wanted(run).items():
        ports[name] = _decided_port(run, record, name, wanted)
        if record.get(name) != {"wanted": wanted, "port": ports[name]}:
            return "machine.yaml wants other ports"
    current = {app.name: app.port for app in pm2.running(run.layout)}
    # What runs on its port needs no check; of our services only that they run is known.
    starting = {
        name: port
        for name, port in ports.items()
        if name not in current or (name not in FIELDS and current[name] != port)
    }
    if not starting:
        return None
    held_by_others = _held_by_others(run)
    for name, port in starting.items():
        if held := held_by_others.get(port):
            return f"{held}, but {name} needs it"
    return None


def _held_by_others(run: Run) -> dict[int, port_holders.Holder]:
    ours = apps.family(run.machine.workspace)
    return {port: held for port, held in port_holders.holders().items() if held.pid not in ours}


def _choose(run: Run) -> Decisions:
    """Choose a port for each app. Raises Failure when one is taken and none above is free.

    Instances that aren't declared now keep their record, for when they return.
    """
    held_by_others = _held_by_others(run)
    wanted = _wanted(run)
    owners = {port: name for name, port in wanted.items()}
    record = _read_decisions(run)
    ports = {name: _decided_port(run, record, name, port) for name, port in wanted.items()}
    if run.machine.instances.port_conflict == "fail":
        _refuse_held(ports, held_by_others)
    for name, port in ports.items():
        held = held_by_others.get(port)
        if held or owners.get(port, name) != name:
            above = range(wanted[name], 65536)
            port = next((p for p in above if p not in held_by_others and p not in owners), 0)
            if not port:
                raise Failure(f"{name} can't start: no port from {wanted[name]} is free")
            run.tell(f"{name} takes port {port}: {held or f'{wanted[name]} is taken'}")
        owners[port] = name
        record[name] = {"wanted": wanted[name], "port": port}
    return record


def _refuse_held(
    ports: Mapping[str, int], held_by_others: Mapping[int, port_holders.Holder]
) -> None:
    """Raises Failure when others hold any of these ports."""
    if held := _held(ports, held_by_others):
        raise Failure(_refusal(held))


def _held(
    ports: Mapping[str, int], held_by_others: Mapping[int, port_holders.Holder]
) -> dict[str, port_holders.Holder]:
    return {name: held_by_others[port] for name, port in ports.items() if port in held_by_others}


def _told(held: Mapping[str, port_holders.Holder]) -> str:
    return "; ".join(f"{name} can't start: {holder}" for name, holder in held.items())


def _refusal(held: Mapping[str, port_holders.Holder]) -> str:
    fields = {FIELDS.get(name, "instances.port_start") for name in held}
    return (
        f"{_told(held)}; stop {'that' if len(held) == 1 else 'those'}, choose another "
        f"{' and '.join(sorted(fields))}, or set instances.port_conflict: next"
    )


def _preview(run: Run, log: Path) -> list[str]:
    _decide(run, log)
    return []


def _decide(run: Run, log: Path) -> None:
    _write_decisions(run, _choose(run))
