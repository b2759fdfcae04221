"""The health server: up before anything is installed, and through every later run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .engine.messages import go_on, warn
from .engine.step import Task, step
from .host.comfyui import api, health_client
from .host.downloads.model_files import WantedModel
from .host.generations.installed import WantedNode
from .host.pm2 import apps, pm2
from .host.system import files, port_holders
from .host.system.failure import Failure
from .pm2 import app, own_service
from .pm2 import stage as configs
from .pm2.app import App
from .source import stage as source
from .spec import Instance, Machine, expand
from .spec.layout import Layout

NAME = apps.SERVER


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
    return own_service.settings_file(layout, NAME)


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
        "comfyui": asdict(declared_comfyui(machine)),
        "nodes": [asdict(node) for node in declared_nodes(machine)],
        "selected": None if chosen is None else list(chosen),
        "models": [asdict(model) for model in declared_models(machine)],
        "models_folder": str(machine.models.folder),
        "store": str(machine.models.store),
        "restarts": machine.instances.restart_unhealthy,
        "start_timeout": health.timeout,
        "job_timeout": machine.instances.job_timeout,
        "warmup": str(health.warmup) if health.warmup else None,
        "canary": str(health.canary) if health.canary else None,
        "canary_every": health.canary_every,
    }


def declared_comfyui(machine: Machine) -> WantedNode:
    entry = machine.comfyui
    path = str(entry.path) if entry.path else None
    return WantedNode(source.NAME, None if path else entry.repo, entry.ref, path)


def declared_nodes(machine: Machine) -> tuple[WantedNode, ...]:
    return tuple(
        WantedNode(node.name, node.url, node.ref, str(node.path) if node.path else None,
                   node.optional)
        for node in machine.custom_nodes
    )  # fmt: skip


def declared_models(machine: Machine) -> tuple[WantedModel, ...]:
    return tuple(
        WantedModel(file.target, file.url, file.sha256,
                    str(file.source) if file.source else None, file.optional)
        for file in machine.models.files
    )  # fmt: skip


def _app(machine: Machine) -> App:
    """The app, marked by all that it is made of. Raises Failure when its token isn't set."""

    health = machine.health
    if health.token and client(machine).token is None:
        name = health.token.strip("${}")
        raise Failure(
            f"health.token: the variable {name} isn't set: set it, or put it into "
            f"{machine.file.parent / '.env.local'}"
        )
    named = {"HEALTH_TOKEN": health.token} if health.token else {}
    about = [health.listen, health.port]
    return own_service.declare(machine, NAME, "tasks.services.health", about, named)


def _outdated(machine: Machine, instances: Sequence[Instance]) -> str | None:
    layout = machine.layout
    running = own_service.running(layout, NAME)
    if not machine.health.server:
        return f"{NAME} runs, and health.server is false" if running else None
    wanted = _app(machine)
    if reason := own_service.why_restart(wanted, running):
        return reason
    if files.read_receipt(_settings_file(layout)) != _settings(machine, instances):
        return "what it watches changed"
    file = app.secrets_file(layout, NAME, wanted.secrets)
    return f"{file} is missing" if wanted.secrets and not file.is_file() else None


def _start(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    """Raises Failure when its port is taken, or it doesn't start."""
    layout = machine.layout
    running = own_service.running(layout, NAME)
    if not machine.health.server:
        _end(layout, running)
        _remove_secrets(layout, None)
        return
    files.write_receipt(_settings_file(layout), _settings(machine, instances))
    wanted = _app(machine)
    app.write_secrets(layout, wanted)
    if own_service.why_restart(wanted, running) is None:
        return
    _refuse_taken_port(machine, running)
    _end(layout, running)
    _remove_secrets(layout, app.secrets_file(layout, NAME, wanted.secrets))
    own_service.start(layout, wanted)
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
