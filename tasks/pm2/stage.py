"""The PM2 config of each GPU: its instance, and the workers of that instance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import dotenv, gpus, ports, validation
from ..engine.run import Run
from ..engine.step import Task, group, step
from ..generation import stage as generation
from ..host.comfyui import api
from ..host.generations import reported_changes
from ..host.pm2 import apps
from ..host.python import constraints
from ..host.system import files
from ..host.system.failure import Failure
from ..limits import memory_share, shim_options
from ..links import folder_types
from ..source.arguments import asset_flags
from ..spec import Instance, Worker
from ..spec.job_checks import WORKER
from ..spec.layout import Layout
from ..spec.variable_references import expand_instance
from . import app, databases, job_programs, own_service


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    after = ["variables", "supervisor", "validation", "links", "dotenv", "gpus", "ports", "limits"]
    yield group("pm2", "The PM2 config of each GPU, rendered", after)
    for instance in instances:
        yield step(
            run,
            f"pm2:gpu{instance.gpu}",
            f"PM2 config of {instance.name}",
            check=partial(_why_outdated, run, instance),
            action=partial(_render, run, instance),
            preview=partial(_preview, run, instance),
            after=after,
        )


def worker_name(worker: Worker, instance: Instance) -> str:
    place = f"gpu{instance.gpu}" if worker.per == "instance" else "machine"
    return f"{worker.name}-{place}"


def workers_of(run: Run, instance: Instance) -> list[Worker]:
    """The workers in the config of this instance: its own; the first one's has those of the
    machine too."""
    is_first = instance == run.instances[0] if run.instances else False
    own = [each for each in run.machine.workers if each.per == "instance" or is_first]
    return [*own, *filter(None, [job_programs.worker(run, instance)])]


def worker_names(run: Run, instance: Instance) -> list[str]:
    """The workers that are this instance's alone."""
    own = [each for each in workers_of(run, instance) if each.per == "instance"]
    return [worker_name(each, instance) for each in own]


def _receipt(layout: Layout, gpu: int) -> Path:
    return layout.read_path(layout.apps / f"gpu{gpu}.receipt.json")


def _apps(run: Run, instance: Instance) -> list[app.App]:
    return [
        _instance_app(run, instance),
        *(_worker_app(run, worker, instance) for worker in workers_of(run, instance)),
    ]


def _instance_app(run: Run, instance: Instance) -> app.App:
    layout = run.layout
    folder = generation.folder_of(run)
    home = layout.instance(instance.gpu)
    model_paths = folder_types.model_paths(run)
    port = ports.port_of(run, instance)
    database = databases.file_of(run, instance.gpu)
    code = generation.code_of(run)
    has_database = code.knows("--database-url")
    env = {
        # nvidia-smi's order; CUDA's default order is fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": gpus.device_of(run, instance),
        apps.PORT: str(port),
        apps.SCHEME: instance.scheme,
        "PYTHONUNBUFFERED": "1",
        **memory_share(run),
    }
    command = [
        *(generation.python_of(folder), folder / "ComfyUI" / "main.py"),
        *("--listen", instance.listen),
        *("--port", port),
        *("--output-directory", layout.outputs(instance.gpu)),
        *("--input-directory", layout.inputs),
        *("--temp-directory", home),
        *("--user-directory", home / "user"),
        *(["--database-url", f"sqlite:///{database}"] if has_database else []),
        *asset_flags(run, code),
        *(["--cpu"] if instance.cpu_only else []),
        *(["--extra-model-paths-config", layout.extra_model_paths] if model_paths else []),
        *_selection(run, folder),
        *instance.args,
    ]
    shim = [
        *("--report", str(layout.reports(instance.gpu))),
        *("--changes", str(reported_changes.file_of(folder))),
        *(["--database", str(database)] if has_database else []),
        *shim_options(run.machine.instances.limits),
    ]
    named = constraints.within(folder / "environment", instance.env)
    declared = app.declare(run, instance.name, folder / "ComfyUI", command, env, named, shim)
    return replace(declared, dotenvs=dotenv.contents(run), model_paths=model_paths)


def _selection(run: Run, folder: Path) -> list[str]:
    """Flags that disable nodes which the environment doesn't select, or which end ComfyUI."""
    declared = {node.name for node in run.machine.custom_nodes}
    disabled = set(validation.fatal_nodes(folder))
    if run.machine.selected_nodes is not None:
        disabled |= declared - set(run.machine.selected_nodes)
    if not disabled:
        return []
    try:
        installed = {path.name for path in (folder / "ComfyUI" / "custom_nodes").iterdir()}
    except FileNotFoundError:
        # A plan makes no generation.
        installed = declared
    enabled = sorted(installed - disabled - {files.BYTECODE})
    allowed = ["--whitelist-custom-nodes", *enabled] if enabled else []
    return ["--disable-all-custom-nodes", *allowed]


def _worker_app(run: Run, worker: Worker, instance: Instance) -> app.App:
    """A worker of an instance, or of the machine. Raises Failure without its program."""
    name = worker_name(worker, instance)
    env = (
        _instance_variables(run, instance)
        if worker.per == "instance"
        else {"COMFYUI_URLS": " ".join(_urls(run))}
    )
    env["WORKER_ID"] = f"{run.machine.machine_id}-{name}" if run.machine.machine_id else name
    if worker.stop_timeout is not None:
        env["WORKER_STOP_TIMEOUT"] = str(worker.stop_timeout)
    values = references(run, instance)
    named = {key: expand_instance(value, values) for key, value in worker.env.items()}
    folder = worker.cwd or run.layout.workspace
    search_path = os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])
    program = shutil.which(worker.command[0], path=search_path)
    if program is None:
        raise Failure(f"worker {worker.name}: {worker.command[0]} is missing: correct command")
    if not folder.is_dir():
        raise Failure(f"worker {worker.name}: {folder} isn't a folder: correct cwd")
    return app.declare(run, name, folder, [program, *worker.command[1:]], env, named, ())


def _instance_variables(run: Run, instance: Instance) -> dict[str, str]:
    layout, url = run.layout, _url(run, instance)
    return {
        "COMFYUI_URL": url,
        "WORKER_COMFYUI_HOST": _host(url),
        "WORKER_COMFYUI_PORT": str(ports.port_of(run, instance)),
        "WORKER_DRAIN_FILE": str(layout.draining(instance.gpu)),
        "WORKER_OUTPUT_DIRECTORY": str(layout.outputs(instance.gpu)),
    }


def references(run: Run, instance: Instance) -> dict[str, str]:
    """What `${instance.NAME}` stands for in a worker's settings."""
    url = _url(run, instance)
    return {
        "gpu": str(instance.gpu),
        "host": _host(url),
        "name": instance.name,
        "port": str(ports.port_of(run, instance)),
        "url": url,
    }


def _urls(run: Run) -> list[str]:
    """Of all instances; a cordon restarts no worker of the machine, so of cordoned ones too."""
    cordoned = (run.machine.instance(gpu) for gpu in run.cordoned)
    every = sorted([*run.instances, *cordoned], key=lambda each: each.gpu)
    return [_url(run, each) for each in every]


def _url(run: Run, instance: Instance) -> str:
    return api.url(instance.listen, ports.port_of(run, instance), instance.scheme)


def _host(url: str) -> str:
    return url.partition("://")[2].rsplit(":", 1)[0]


def _inputs(run: Run, instance: Instance) -> str:
    """A digest of the apps, with secrets as HMACs, and of the template."""
    from ..host.system import templates

    declared = [
        asdict(each) | {"secrets": app.secret_hashes(run.layout, each), "dotenvs": None}
        for each in _apps(run, instance)
    ]
    return files.digest([declared, files.file_digest(templates.FOLDER / app.TEMPLATE)])


def _why_outdated(run: Run, instance: Instance) -> str | None:
    layout = run.layout
    receipt = files.read_receipt(_receipt(layout, instance.gpu))
    if receipt.get("inputs") != _inputs(run, instance):
        return f"the config of {instance.name} changed"
    if receipt.get("config") != files.file_digest(layout.read_path(layout.rendered(instance.gpu))):
        return f"{layout.rendered(instance.gpu)} was changed by hand"
    for file, content in _worker_settings(run, instance).items():
        if files.read_receipt(layout.read_path(file)) != content:
            return f"{file} is missing, or was changed by hand"
    for each in _apps(run, instance):
        file = app.secrets_file(layout, each.name, each.secrets)
        if each.secrets and not file.is_file():
            return f"{file} is missing"
    return None


def _worker_settings(run: Run, instance: Instance) -> dict[Path, dict[str, Any]]:
    """The file of the worker of jobs, if there is one, and what it should hold."""
    jobs = run.machine.wanted_jobs
    if jobs is None:
        return {}
    file = own_service.settings_file(run.layout, f"{WORKER}-gpu{instance.gpu}")
    return {file: job_programs.settings(run, jobs)}


def _preview(run: Run, instance: Instance, log: Path) -> list[str]:
    path = run.layout.write_path(run.layout.rendered(instance.gpu))
    files.write_receipt(path, app.render_config(run, _apps(run, instance)))
    return []


def _render(run: Run, instance: Instance, log: Path) -> None:
    layout = run.layout
    declared = _apps(run, instance)
    for each in declared:
        app.write_secrets(layout, each)
    for file, content in _worker_settings(run, instance).items():
        files.write_receipt(file, content)
    path = layout.rendered(instance.gpu)
    files.write_receipt(path, app.render_config(run, declared))
    receipt = {"inputs": _inputs(run, instance), "config": files.file_digest(path)}
    files.write_receipt(_receipt(layout, instance.gpu), receipt)
