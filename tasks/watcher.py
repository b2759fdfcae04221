"""The watcher: restarts instances that are not well, and rotates logs, until the next run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from . import limits
from .engine.step import Task, step
from .host.pm2 import apps, pm2
from .host.system import files
from .pm2 import stage as configs
from .spec import Instance, Machine, in_bytes
from .spec.layout import Layout

NAME = apps.WATCHER
HUNG = 30
"""Seconds without an answer; one that loads a checkpoint answers within a second."""
EVERY = 2
"""Seconds between two looks."""
DAY = 86400
CODE = (
    "services/watcher.py",
    "host/apps.py",
    "host/census.py",
    "host/health_client.py",
    "host/watch.py",
    "host/rotation.py",
    "host/usage.py",
)
"""What it is made of: a newer one takes the place of one that runs."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    yield step(
        "watcher",
        "Restarts instances that hang, rotates logs",
        check=partial(_outdated, machine, instances),
        action=partial(_start, machine, instances),
        log=layout.log("watcher:start"),
        after=["instances"],
    )


def _settings_file(layout: Layout) -> Path:
    return layout.apps / "watcher.json"


def _settings(machine: Machine, instances: Sequence[Instance]) -> dict[str, Any]:
    """All that it knows; the service reads it."""
    wanted = machine.instances
    memory = wanted.limits.memory
    return {
        "workspace": str(machine.workspace),
        "instances": [
            {"gpu": each.gpu, "name": each.name, "listen": each.listen} for each in instances
        ],
        "rules": {
            "hung": HUNG,
            "job_timeout": wanted.job_timeout,
            "start_timeout": machine.health.timeout,
            "memory": in_bytes(memory) if memory else None,
        },
        "logs": {
            "max_size": in_bytes(wanted.logs.max_size),
            "max_age": wanted.logs.max_age * DAY,
            "keep": wanted.logs.keep,
        },
        "server": {"listen": machine.health.listen, "port": machine.health.port}
        if machine.health.server
        else None,
        "restart": wanted.restart_unhealthy,
        "every": EVERY,
    }


def _app(machine: Machine, instances: Sequence[Instance]) -> configs.App:
    """The app, marked by all that it is made of; nothing is rendered to know that."""
    from .host.system import templates

    layout = machine.layout
    module = "tasks.services.watcher"
    command = [sys.executable, "-I", "-m", module, str(_settings_file(layout))]
    app = configs.app(machine, NAME, layout.workspace, command, {}, {})
    code = [Path(__file__).parent / name for name in CODE]
    made_of = [files.file_digest(path) for path in (*code, templates.FOLDER / configs.TEMPLATE)]
    app.env[apps.FINGERPRINT] = files.digest([asdict(app), _settings(machine, instances), made_of])
    return app


def _outdated(machine: Machine, instances: Sequence[Instance]) -> str | None:
    layout = machine.layout
    if not instances:
        return None
    if files.read_receipt(_settings_file(layout)) != _settings(machine, instances):
        return "what is watched changed"
    wanted = _app(machine, instances).env[apps.FINGERPRINT]
    for app in pm2.running(layout):
        if app.name == NAME and app.supervised and app.fingerprint == wanted:
            return None
    return f"{NAME} doesn't run as it should"


def _start(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    """Raises Failure when it doesn't start."""
    layout = machine.layout
    limits.warn_of_all_together(machine, instances)
    file = _settings_file(layout)
    files.write_receipt(file, _settings(machine, instances))
    app = _app(machine, instances)
    configs.start_own(layout, app, file.with_suffix(".ready.json"))
