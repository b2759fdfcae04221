"""The watcher: a service that restarts unhealthy instances and rotates logs between runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import limits, ports
from .engine.run import Run
from .engine.step import Task, step
from .host.pm2 import apps
from .host.system import files, heartbeat
from .pm2 import job_programs, own_service
from .pm2 import stage as configs
from .pm2.app import App
from .spec import Instance, Worker, in_bytes
from .spec.variable_references import expand_instance

NAME = apps.WATCHER
HANG_TIMEOUT = 30
"""Seconds without an answer; an instance that loads a checkpoint answers within a second."""
CHECK_EVERY = 2
"""Seconds between two checks."""
DAY = 86400


def tasks(run: Run) -> Iterator[Task]:
    layout = run.layout
    yield step(
        run,
        "watcher",
        "Restarts instances that hang, rotates logs",
        check=partial(_why_outdated, run),
        action=partial(_start, run),
        log=layout.log("watcher:start"),
        after=["instances"],
    )


def _settings(run: Run) -> dict[str, Any]:
    wanted = run.machine.instances
    memory = wanted.limits.memory
    return {
        "workspace": str(run.machine.workspace),
        "instances": [
            {"gpu": each.gpu, "name": each.name, "listen": each.listen} for each in run.instances
        ],
        "rules": {
            "hung": HANG_TIMEOUT,
            "job_timeout": wanted.job_timeout,
            "start_timeout": run.machine.health.timeout,
            "memory": in_bytes(memory) if memory else None,
        },
        "logs": {
            "max_size": in_bytes(wanted.logs.max_size),
            "max_age": wanted.logs.max_age * DAY,
            "keep": wanted.logs.keep,
        },
        "server": {"listen": run.machine.health.listen, "port": ports.health_port(run)}
        if run.machine.health.server
        else None,
        "restart": wanted.restart_unhealthy,
        "every": CHECK_EVERY,
        "pinned": wanted.pin == "uuid",
        "cards": [
            {
                "gpu": each.gpu,
                "name": each.name,
                "workers": configs.worker_names(run, each),
            }
            for each in run.instances
            if not (each.cpu_only or each.device)
        ],
        # Without a health server nothing runs the job of an instance that PM2 restarted.
        "warms": run.machine.health.warmup is not None and run.machine.health.server,
        "workers": [
            _worker(run, worker, instance)
            for instance in run.instances
            for worker in configs.workers_of(run, instance)
        ],
        **({"services": services} if (services := _services(run)) else {}),
    }


def _services(run: Run) -> list[dict[str, Any]]:
    port = job_programs.server_port(run)
    return [
        {"name": name, "port": port if name == apps.JOBS_SERVER else None}
        for name in job_programs.names(run)
    ]


def _worker(run: Run, worker: Worker, instance: Instance) -> dict[str, Any]:
    every = [each.gpu for each in run.instances]
    found = worker.health
    values = configs.references(run, instance)
    return {
        "name": configs.worker_name(worker, instance),
        "gpus": [instance.gpu] if worker.per == "instance" else every,
        "shared": worker.per == "machine",
        "held": worker.restart_with_instance,
        "cwd": str(worker.cwd or run.machine.workspace),
        "probe": {
            "url": expand_instance(found.url, values) if found.url else None,
            "command": list(found.command) if found.command else None,
            "timeout": found.timeout,
        }
        if found
        else None,
    }


def _app(run: Run) -> App:
    return own_service.declare(run, NAME, "comfy_machine.services.watcher", _settings(run))


def _why_outdated(run: Run) -> str | None:
    layout = run.layout
    if not run.instances:
        return None
    if files.read_receipt(own_service.settings_file(layout, NAME)) != _settings(run):
        return "its settings changed"
    current = own_service.running(layout, NAME)
    if current and heartbeat.is_silent(layout.workspace, current.started):
        return f"{NAME} (pid {current.pid}) hangs: it gives no sign"
    return own_service.why_restart(_app(run), current)


def _start(run: Run, log: Path) -> None:
    """Raises Failure when it doesn't start."""
    layout = run.layout
    limits.warn_if_overcommitted(run)
    files.write_receipt(own_service.settings_file(layout, NAME), _settings(run))
    own_service.start(layout, _app(run))
