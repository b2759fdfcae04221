"""The health server: up before anything is installed, and through every later run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from . import declared
from .engine.messages import go_on, warn
from .engine.step import Task, step
from .host.comfyui import api, health_client
from .host.pm2 import apps, pm2
from .host.system import files, port_holders
from .host.system.failure import Failure
from .pm2 import stage as configs
from .spec import Instance, Machine, expand
from .spec.layout import Layout

NAME = apps.SERVER
CODE = ("host", "services/health", "spec")
"""What it is made of: a newer one takes the place of one that runs."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "server",
        "The health server, which answers while all else is installed",
        check=partial(_outdated, machine, instances),
        action=partial(_start, machine, instances),
        log=machine.layout.log("server"),
        after=["supervisor"],
    )


def client(machine: Machine) -> health_client.Server:
    """Where the machine's health server is asked."""
    health = machine.health
    try:
        token = expand(health.token, machine.env) if health.token else None
    except KeyError:
        token = None
    return health_client.Server(machine.workspace, health.listen, health.port, token)


def complaint(machine: Machine, instance: Instance, pid: int, wait: int = 0) -> str | None:
    """Why the health server, if one answers, finds this process unhealthy; None: it doesn't.

    `wait` is how many seconds it may take to find it healthy.
    """
    if not machine.health.server:
        return None
    path = f"/health/comfyui/instances/{instance.gpu}?wait={wait}"
    answer = health_client.ask(client(machine), path, health_client.PATIENCE + wait)
    told = answer[1] if answer else {}
    running = told.get("layers", {}).get("running", {})
    if told.get("status") != "unhealthy" or running.get("pid") != pid:
        return None
    return str(told["reason"])


def _settings_file(layout: Layout) -> Path:
    return layout.apps / f"{NAME}.json"


def _settings(machine: Machine, instances: Sequence[Instance]) -> dict[str, Any]:
    """All that it is told; it reads the file again when a run has changed it."""
    health, chosen = machine.health, machine.selected_nodes
    return {
        "workspace": str(machine.workspace),
        "machine_file": str(machine.file),
        "lock_file": str(machine.lock_file),
        "listen": health.listen,
        "port": health.port,
        "enabled": machine.enabled,
        "pinned": machine.instances.pin == "uuid",
        "instances": [
            {
                "gpu": each.gpu,
                "name": each.name,
                "listen": each.listen,
                "port": each.port,
                "whole": not (each.cpu_only or each.device),
            }
            for each in instances
        ],
        "workers": [
            {"name": configs.worker_name(worker, instance), "gpu": instance.gpu}
            for instance in instances
            for worker in machine.workers
        ],
        "comfyui": asdict(declared.comfyui(machine)),
        "nodes": [asdict(node) for node in declared.nodes(machine)],
        "selected": None if chosen is None else list(chosen),
        "models": [asdict(model) for model in declared.models(machine)],
        "models_folder": str(machine.models.folder),
        "store": str(machine.models.store),
        "restarts": machine.instances.restart_unhealthy,
        "start_timeout": health.timeout,
        "job_timeout": machine.instances.job_timeout,
        "warmup": str(health.warmup) if health.warmup else None,
        "canary": str(health.canary) if health.canary else None,
        "canary_every": health.canary_every,
    }


def _app(machine: Machine) -> configs.App:
    """The app, marked by all that it is made of. Raises Failure when its token isn't set."""
    from .host.system import templates

    layout, health = machine.layout, machine.health
    command = [sys.executable, "-I", "-m", "tasks.services.health", _settings_file(layout)]
    token = {"HEALTH_TOKEN": health.token} if health.token else {}
    if health.token and client(machine).token is None:
        name = health.token.strip("${}")
        raise Failure(
            f"health.token: the variable {name} isn't set: set it, or put it into "
            f"{machine.file.parent / '.env.local'}"
        )
    app = configs.app(machine, NAME, layout.workspace, command, {}, token)
    folder = Path(__file__).parent
    code = sorted(path for part in CODE for path in (folder / part).glob("*.py"))
    made_of = [*code, templates.FOLDER / configs.TEMPLATE, templates.FOLDER / "page.html"]
    about = asdict(app) | {"secrets": configs.sealed(layout, app)}
    listens = [health.listen, health.port]
    app.env[apps.FINGERPRINT] = files.digest([about, listens, [*map(files.file_digest, made_of)]])
    return app


def _running(layout: Layout) -> apps.App | None:
    return next((app for app in pm2.running(layout) if app.name == NAME), None)


def _outdated(machine: Machine, instances: Sequence[Instance]) -> str | None:
    layout = machine.layout
    running = _running(layout)
    if not machine.health.server:
        return f"{NAME} runs, and health.server is false" if running else None
    if reason := _why_restart(machine, running):
        return reason
    if files.read_receipt(_settings_file(layout)) != _settings(machine, instances):
        return "what it watches changed"
    app = _app(machine)
    file = configs.secrets_file(layout, NAME, app.secrets)
    return f"{file} is missing" if app.secrets and not file.is_file() else None


def _why_restart(machine: Machine, running: apps.App | None) -> str | None:
    if running is None or not running.supervised:
        return f"{NAME} doesn't run"
    if running.fingerprint != _app(machine).env[apps.FINGERPRINT]:
        return f"{NAME} doesn't run as it should"
    return None


def _start(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    """Raises Failure when its port is taken, or it doesn't start."""
    layout = machine.layout
    running = _running(layout)
    if not machine.health.server:
        _end(layout, running)
        _remove_secrets(layout, None)
        return
    file = _settings_file(layout)
    files.write_receipt(file, _settings(machine, instances))
    app = _app(machine)
    configs.write_secrets(layout, app)
    if _why_restart(machine, running) is None:
        return
    _refuse_taken_port(machine, running)
    _end(layout, running)
    _remove_secrets(layout, configs.secrets_file(layout, NAME, app.secrets))
    configs.start_own(layout, app, file.with_suffix(".ready.json"))
    if not machine.health.token and machine.health.listen not in ("127.0.0.1", "::1", "localhost"):
        warn(f"{NAME} listens on {machine.health.listen}: without HEALTH_TOKEN others are answered "
             "on /livez and /readyz alone")  # fmt: skip
    go_on(f"progress and health: {api.url(machine.health.listen, machine.health.port)}")


def _end(layout: Layout, running: apps.App | None) -> None:
    if running is None:
        return
    if running.supervised:
        pm2.delete(layout, {NAME})
    else:
        pm2.end_orphan(running)


def _remove_secrets(layout: Layout, kept: Path | None) -> None:
    """Those of before; a worker's have its GPU in their names."""
    for path in layout.secrets.glob(f"{NAME}-{'[0-9a-f]' * 12}.json"):
        if path != kept:
            files.remove(path)


def _refuse_taken_port(machine: Machine, running: apps.App | None) -> None:
    held: Mapping[int, port_holders.Holder] = port_holders.holders()
    holder = held.get(machine.health.port)
    if holder and not (running and running.pid == holder.pid):
        raise Failure(f"{NAME} can't start: {holder}; stop that, or choose another health.port")
