"""The health server: it starts before anything is installed, and stays up in every later run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from . import ports
from .engine.run import Run
from .engine.step import Task, step
from .host.comfyui import api, health_client, machine_condition
from .host.downloads.model_files import WantedModel
from .host.generations.installed import WantedNode
from .host.pm2 import apps
from .host.system import files
from .pm2 import app, job_programs, own_service
from .pm2 import stage as configs
from .pm2.app import App
from .source import stage as source
from .spec import Instance, expand
from .variables import expand_or_fail

NAME = apps.SERVER
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "server",
        "The health server, which answers during the installation",
        check=partial(_why_outdated, run),
        action=partial(_start, run),
        after=["supervisor", "ports"],
    )


def client(run: Run) -> health_client.Server:
    """A client of the machine's health server."""
    health = run.machine.health
    try:
        token = expand(health.token, run.machine.env) if health.token else None
    except KeyError:
        token = None
    return health_client.Server(run.machine.workspace, health.listen, ports.health_port(run), token)


def page(run: Run) -> str:
    """The address of the health server's page."""
    return api.url(run.machine.health.listen, ports.health_port(run))


def unhealthy_reason(run: Run, instance: Instance, pid: int, wait: int = 0) -> str | None:
    """Why the health server reports this process as unhealthy; None: it doesn't, or no answer.

    `wait`: seconds that the server waits for it to become healthy.
    """
    if not run.machine.health.server:
        return None
    path = f"/health/comfyui/instances/{instance.gpu}?wait={wait}"
    answer = health_client.ask(client(run), path, health_client.ANSWER_TIMEOUT + wait)
    document = answer[1] if answer else {}
    running = document.get("layers", {}).get("running", {})
    if document.get("status") != "unhealthy" or running.get("pid") != pid:
        return None
    return str(document["reason"])


def _settings(run: Run) -> dict[str, Any]:
    # A cordon changes nothing that machine.yaml asks for: the server reads them by itself.
    run = run.without_cordons()
    health, chosen = run.machine.health, run.machine.selected_nodes
    return {
        "workspace": str(run.machine.workspace),
        "machine_file": str(run.machine.file),
        "lock_file": str(run.machine.lock_file),
        "listen": health.listen,
        "port": ports.health_port(run),
        "enabled": run.machine.enabled,
        "pinned": run.machine.instances.pin == "uuid",
        "instances": [
            {
                "gpu": each.gpu,
                "name": each.name,
                "listen": each.listen,
                "port": each.port,
                "whole": not (each.cpu_only or each.device),
            }
            for each in run.instances
        ],
        "workers": [
            {"name": configs.worker_name(worker, instance), "gpu": instance.gpu}
            for instance in run.instances
            for worker in configs.workers_of(run, instance)
        ],
        "comfyui": asdict(declared_comfyui(run)),
        "nodes": [asdict(node) for node in declared_nodes(run)],
        "selected": None if chosen is None else list(chosen),
        "models": [asdict(model) for model in declared_models(run)],
        "models_folder": str(run.machine.models.folder),
        "store": str(run.machine.models.store),
        "restarts": run.machine.instances.restart_unhealthy,
        "start_timeout": health.timeout,
        "job_timeout": run.machine.instances.job_timeout,
        "warmup": str(health.warmup) if health.warmup else None,
        "canary": str(health.canary) if health.canary else None,
        "canary_every": health.canary_every,
        **_jobs(run),
    }


def _jobs(run: Run) -> dict[str, Any]:
    jobs = run.machine.wanted_jobs
    if jobs is None:
        return {}
    gateway = api.url(jobs.listen, ports.gateway_port(run, jobs))
    names, port = job_programs.names(run), job_programs.server_port(run)
    return {"jobs": {"apps": names, "port": port, "gateway": gateway}}


def digest(run: Run) -> str:
    """The digest of machine.yaml and lock as they are now, by which conditions name them."""
    settings = files.digest(_settings(run))
    return machine_condition.digest(settings, files.file_digest(run.machine.lock_file))


def declared_comfyui(run: Run) -> WantedNode:
    entry = run.machine.comfyui
    path = str(entry.path) if entry.path else None
    return WantedNode(source.NAME, None if path else entry.repo, entry.ref, path)


def declared_nodes(run: Run) -> tuple[WantedNode, ...]:
    return tuple(
        WantedNode(node.name, node.url, node.version if node.id else node.ref,
                   str(node.path) if node.path else None, node.optional, node.id)
        for node in run.machine.custom_nodes
    )  # fmt: skip


def declared_models(run: Run) -> tuple[WantedModel, ...]:
    return tuple(
        WantedModel(file.target, file.url, file.sha256,
                    str(file.source) if file.source else None, file.optional)
        for file in run.machine.models.files
    )  # fmt: skip


def _app(run: Run) -> App:
    """Raises Failure when its token, or that of the gateway, isn't set."""
    health, jobs = run.machine.health, run.machine.wanted_jobs
    named = {}
    if health.token:
        expand_or_fail(run, health.token, "health.token")
        named["HEALTH_TOKEN"] = health.token
    if jobs and jobs.token:
        expand_or_fail(run, jobs.token, "jobs.token")
        named[job_programs.TOKEN] = jobs.token
    about = [health.listen, ports.health_port(run)]
    return own_service.declare(run, NAME, "comfy_machine.services.health", about, named)


def _why_outdated(run: Run) -> str | None:
    layout = run.layout
    running = own_service.running(layout, NAME)
    if not run.machine.health.server:
        return f"{NAME} runs, but health.server is false" if running else None
    wanted = _app(run)
    if reason := own_service.why_restart(wanted, running):
        return reason
    if files.read_receipt(own_service.settings_file(layout, NAME)) != _settings(run):
        return "its settings changed"
    file = app.secrets_file(layout, NAME, wanted.secrets)
    return f"{file} is missing" if wanted.secrets and not file.is_file() else None


def _start(run: Run, log: Path) -> None:
    """Raises Failure when its port is taken or it doesn't start."""
    layout = run.layout
    running = own_service.running(layout, NAME)
    if not run.machine.health.server:
        own_service.stop(layout, running)
        own_service.remove_secrets(layout, NAME, None)
        return
    files.write_receipt(own_service.settings_file(layout, NAME), _settings(run))
    wanted = _app(run)
    app.write_secrets(layout, wanted)
    if own_service.why_restart(wanted, running) is None:
        return
    ports.refuse_held(NAME, ports.health_port(run), running)
    own_service.stop(layout, running)
    own_service.remove_secrets(layout, NAME, app.secrets_file(layout, NAME, wanted.secrets))
    own_service.start(layout, wanted)
    health = run.machine.health
    if not health.token and health.listen not in LOOPBACK:
        run.warn(
            f"{NAME} listens on {health.listen}: without HEALTH_TOKEN, other hosts get answers on "
            "/livez and /readyz only"
        )
    run.say(f"progress and health: {page(run)}")
