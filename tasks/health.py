"""The gate: each instance is polled until it is healthy, or is known not to become so."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks import folder_types, links, validation
from tasks import pm2 as configs
from tasks.engine.said import warn
from tasks.engine.step import Task, group, step
from tasks.host import apps, comfyui, files, pm2, process, quick_test
from tasks.host.failure import Failure
from tasks.spec import Instance, Machine

APPEARS = 2.0
"""Seconds that a started process may take to show its environment; it has none while it execs."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    yield group("health", "Every instance answers and is healthy")
    for instance in instances:
        yield step(
            f"health:gpu{instance.gpu}",
            f"{instance.name} is healthy",
            check=partial(_unhealthy, machine, instance),
            action=partial(_wait, machine, instance),
            log=layout.log(f"health:gpu{instance.gpu}"),
            after=[f"instances:gpu{instance.gpu}"],
        )


def _unhealthy(machine: Machine, instance: Instance) -> str | None:
    app = _app(machine, instance)
    if app is None:
        return f"{instance.name} doesn't run"
    if app.fingerprint != configs.fingerprint(machine.layout, instance.gpu, instance.name):
        return f"{instance.name} doesn't run as its config says"
    if machine.overlay and links.swaps(machine):
        # A run has changed them by now, a plan has not.
        return f"{instance.name} is restarted"
    if files.read_receipt(machine.layout.healthy(instance.gpu)) != _passed(app):
        return f"{instance.name} was started anew"
    health = comfyui.probe(instance.listen, instance.port)
    return None if health.healthy else health.reason


def _passed(app: apps.App) -> dict[str, object]:
    return {"pid": app.pid, "fingerprint": app.fingerprint}


def _app(machine: Machine, instance: Instance) -> apps.App | None:
    layout = machine.layout
    for app in apps.running(layout.workspace, pm2.daemon(layout)):
        if app.name == instance.name:
            return app
    return None


def _wait(machine: Machine, instance: Instance, log: Path) -> None:
    """Raises Failure as soon as the instance died, or after `health.timeout` seconds."""
    import psutil

    words = machine.layout.logs / f"{instance.name}.log"
    begin = time.monotonic()
    app: apps.App | None = None
    while True:
        app = app or _app(machine, instance)
        seconds = time.monotonic() - begin
        if (app and not psutil.pid_exists(app.pid)) or (not app and seconds > APPEARS):
            said = process.last_line(process.tail(words))
            raise Failure(f"{instance.name} died while it started: {said}", words)
        health = comfyui.probe(instance.listen, instance.port)
        if app and health.healthy:
            break
        if seconds > machine.health.timeout:
            raise Failure(
                f"{instance.name} isn't healthy after {machine.health.timeout} s "
                f"(health.timeout): {health.reason}",
                words,
            )
        time.sleep(comfyui.POLL)
    _check_nodes(machine, instance)
    _check_folders(machine, instance)
    files.write_receipt(machine.layout.healthy(instance.gpu), _passed(app))


def _check_nodes(machine: Machine, instance: Instance) -> None:
    """A node can import in the build and not here; the start-up log is the only place to see it."""
    said = comfyui.Client(instance.listen, instance.port).get("/internal/logs")
    required = {node.name for node in machine.custom_nodes if not node.optional}
    failed = {
        name: validation.redacted(machine, result).reason
        for name, result in quick_test.parse(said).items()
        if not result.imported
    }
    for name in sorted(set(failed) - required):
        warn(f"custom node {name} doesn't import on {instance.name}: {failed[name]}")
    if missing := sorted(set(failed) & required):
        raise Failure(
            f"{instance.name} runs without {', '.join(missing)}: {failed[missing[0]]}",
            machine.layout.logs / f"{instance.name}.log",
        )


def _check_folders(machine: Machine, instance: Instance) -> None:
    """ComfyUI says itself where it looks for models; its configuration only says what it should."""
    client = comfyui.Client(instance.listen, instance.port)
    paths = [path for paths in client.get("/internal/folder_paths").values() for path in paths]
    seen = {os.path.realpath(path) for path in paths}
    missing = [
        path for path in folder_types.expected(machine) if os.path.realpath(path) not in seen
    ]
    if missing:
        raise Failure(
            f"{instance.name} doesn't look for models in {missing[0]}: see that no argument or "
            "custom node changes its model paths",
            machine.layout.logs / f"{instance.name}.log",
        )
