"""The PM2 config of each GPU: its instance, and the workers of that instance."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import dotenv, gpus, ports, validation
from ..engine.step import Task, group, step
from ..generation import last_good
from ..generation import stage as generation
from ..host.comfyui import api
from ..host.generations import reported_changes
from ..host.pm2 import apps, pm2
from ..host.python import constraints
from ..host.system import files, process
from ..host.system.failure import Failure
from ..limits import memory_share, shim_options
from ..links import folder_types
from ..source.arguments import asset_flags
from ..spec import Instance, Machine, Worker, expand
from ..spec.layout import Layout
from . import databases

TEMPLATE = "instance.config.json.j2"
SHIM = Path(__file__).parents[1] / "services" / "shim.py"
STARTS = 15.0
"""Seconds that an app of ours may take to do its work; on a busy core its imports take two."""


@dataclass(frozen=True)
class App:
    """What PM2 is to run: an instance or a worker."""

    name: str
    cwd: str
    command: list[str]
    env: dict[str, str]
    log: str
    secrets: dict[str, str]
    """Variables whose values came from the environment; they stand in a file, 0600."""
    dotenvs: dict[str, str] = field(default_factory=dict)
    """What custom nodes read in it as their .env, by node; holds secrets too."""
    model_paths: str | None = None
    """What it reads as its extra_model_paths.yaml."""


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    layout = machine.layout
    after = ["variables", "supervisor", "validation", "links", "dotenv", "gpus", "ports", "limits"]
    yield group("pm2", "The PM2 config of each GPU, rendered", after)
    for instance in instances:
        yield step(
            f"pm2:gpu{instance.gpu}",
            f"PM2 config of {instance.name}",
            check=partial(_outdated, machine, instance),
            action=partial(_render, machine, instance),
            foresee=partial(_foresee, machine, instance),
            log=layout.log(f"pm2:gpu{instance.gpu}"),
            after=after,
        )


def worker_name(worker: Worker, instance: Instance) -> str:
    return f"{worker.name}-gpu{instance.gpu}"


def _receipt(layout: Layout, gpu: int) -> Path:
    return layout.seen(layout.apps / f"gpu{gpu}.receipt.json")


def secrets_file(layout: Layout, name: str, variables: Mapping[str, str]) -> Path:
    """Named by what it holds: a config of before still finds what it was made with."""
    return layout.secrets / f"{name}-{last_good.seal(layout, json.dumps(variables))[:12]}.json"


def _apps(machine: Machine, instance: Instance) -> list[App]:
    return [
        _instance_app(machine, instance),
        *(_worker_app(machine, worker, instance) for worker in machine.workers),
    ]


def _instance_app(machine: Machine, instance: Instance) -> App:
    layout = machine.layout
    folder = generation.folder_of(machine)
    home = layout.instance(instance.gpu)
    model_paths = folder_types.model_paths(machine)
    port = ports.port_of(machine, instance)
    database = databases.file_of(machine, instance.gpu)
    code = generation.code_of(machine)
    has_database = code.knows("--database-url")
    env = {
        # nvidia-smi's order; CUDA's own is fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": gpus.device_of(machine, instance),
        apps.PORT: str(port),
        apps.SCHEME: instance.scheme,
        "PYTHONUNBUFFERED": "1",
        **memory_share(machine),
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
        *asset_flags(machine, code),
        *(["--cpu"] if instance.cpu_only else []),
        *(["--extra-model-paths-config", layout.extra_model_paths] if model_paths else []),
        *_selection(machine, folder),
        *instance.args,
    ]
    shim = [
        *("--report", str(layout.reports(instance.gpu))),
        *("--changes", str(reported_changes.file_of(folder))),
        *(["--database", str(database)] if has_database else []),
        *shim_options(machine.instances.limits),
    ]
    named = constraints.within(folder / "environment", instance.env)
    made = app(machine, instance.name, folder / "ComfyUI", command, env, named, shim)
    return replace(made, dotenvs=dotenv.contents(machine), model_paths=model_paths)


def _selection(machine: Machine, folder: Path) -> list[str]:
    """Flags that leave out nodes: not selected by the environment, or ComfyUI dies of them."""
    away = set(validation.fatal(folder))
    if machine.selected_nodes is not None:
        away |= {node.name for node in machine.custom_nodes} - set(machine.selected_nodes)
    if not away:
        return []
    try:
        there = {path.name for path in (folder / "ComfyUI" / "custom_nodes").iterdir()}
    except FileNotFoundError:
        # A plan's generation is not made.
        there = {node.name for node in machine.custom_nodes}
    chosen = sorted(there - away - {files.BYTECODE})
    return [
        "--disable-all-custom-nodes",
        *(["--whitelist-custom-nodes", *chosen] if chosen else []),
    ]


def _worker_app(machine: Machine, worker: Worker, instance: Instance) -> App:
    layout = machine.layout
    port = ports.port_of(machine, instance)
    url = api.url(instance.listen, port, instance.scheme)
    env = {
        "WORKER_ID": worker_name(worker, instance),
        "COMFYUI_URL": url,
        "WORKER_COMFYUI_HOST": url.partition("://")[2].rsplit(":", 1)[0],
        "WORKER_COMFYUI_PORT": str(port),
        "WORKER_DRAIN_FILE": str(layout.draining(instance.gpu)),
        "WORKER_OUTPUT_DIRECTORY": str(layout.outputs(instance.gpu)),
    }
    program = shutil.which(worker.command[0], path=_search_path(machine))
    if program is None:
        raise Failure(f"worker {worker.name}: {worker.command[0]} isn't there: correct command")
    command = [program, *worker.command[1:]]
    return app(
        machine, worker_name(worker, instance), layout.workspace, command, env, worker.env, ()
    )


def _search_path(machine: Machine) -> str:
    """Where a worker's command is looked for: the workspace comes first."""
    return os.pathsep.join([str(machine.workspace), os.environ.get("PATH", os.defpath)])


def app(
    machine: Machine,
    name: str,
    cwd: Path,
    command: Sequence[object],
    env: Mapping[str, str],
    named: Mapping[str, str],
    shim: Sequence[str] | None = None,
) -> App:
    """`named` are the variables from machine.yaml; those with `${NAME}` become secrets.

    `shim` are options of the shim; with it, whatever the app starts ends with it. None: it needs
    no shim.

    Raises Failure for a variable that isn't set.
    """
    layout = machine.layout
    hidden = {}
    for key, value in named.items():
        if "${" in value:
            try:
                hidden[key] = expand(value, machine.env)
            except KeyError as error:
                raise Failure(
                    f"{name}: the variable {error.args[0]} isn't set, {key} needs it: "
                    f"set it, or put it into {machine.file.parent / '.env.local'}"
                ) from None
    words = [str(word) for word in command]
    if hidden:
        shim = ["--env", str(secrets_file(layout, name, hidden)), *(shim or ())]
    if shim is not None:
        words = [sys.executable, "-I", str(SHIM), *shim, "--", *words]
    marks = {apps.WORKSPACE: str(machine.workspace), apps.NAME: name}
    plain = {key: value for key, value in named.items() if key not in hidden}
    return App(
        name, str(cwd), words, {**env, **plain, **marks}, str(layout.logs / f"{name}.log"), hidden
    )


def write_secrets(layout: Layout, app: App) -> None:
    """Write the file from which an app gets what nobody else is to see."""
    if app.secrets:
        file = secrets_file(layout, app.name, app.secrets)
        files.write_text(file, json.dumps(app.secrets), mode=0o600)


def start_own(layout: Layout, app: App, ready: Path) -> None:
    """Start an app of ours, and wait until it writes the file `ready`.

    Raises Failure when that takes longer than STARTS seconds.
    """
    from ..host.system import templates

    files.remove(ready)
    pm2.start(layout, json.loads(templates.render(TEMPLATE, apps=[asdict(app)]))["apps"])
    deadline = time.monotonic() + STARTS
    while not ready.exists():
        if time.monotonic() > deadline:
            words = layout.log(app.name)
            last = process.last_line(process.tail(words))
            raise Failure(f"{app.name} doesn't start: {last}", words)
        time.sleep(api.POLL)


def _inputs(machine: Machine, instance: Instance) -> str:
    """A digest of what the config says, secrets by HMAC, and of the template."""
    from ..host.system import templates

    layout = machine.layout
    wanted = [
        asdict(app) | {"secrets": sealed(layout, app), "dotenvs": None}
        for app in _apps(machine, instance)
    ]
    return files.digest([wanted, files.file_digest(templates.FOLDER / TEMPLATE)])


def sealed(layout: Layout, app: App) -> dict[str, str]:
    """The app's secrets as HMACs: a rotated one is noticed, none can be read or guessed."""
    every = app.secrets | {f"{node}/.env": text for node, text in app.dotenvs.items()}
    return {name: last_good.seal(layout, value) for name, value in every.items()}


def _outdated(machine: Machine, instance: Instance) -> str | None:
    layout = machine.layout
    receipt = files.read_receipt(_receipt(layout, instance.gpu))
    if receipt.get("inputs") != _inputs(machine, instance):
        return f"what {instance.name} is to run changed"
    if receipt.get("config") != files.file_digest(layout.seen(layout.rendered(instance.gpu))):
        return f"{layout.rendered(instance.gpu)} was changed by hand"
    for app in _apps(machine, instance):
        file = secrets_file(layout, app.name, app.secrets)
        if app.secrets and not file.is_file():
            return f"{file} is missing"
    return None


def _config(machine: Machine, wanted: Sequence[App]) -> dict[str, Any]:
    """The apps as PM2 is to have them, each with its fingerprint."""
    from ..host.system import templates

    config: dict[str, Any] = json.loads(
        templates.render(TEMPLATE, apps=[asdict(app) for app in wanted])
    )
    for rendered, app in zip(config["apps"], wanted, strict=True):
        read = [sealed(machine.layout, app), app.model_paths]
        rendered["env"][apps.FINGERPRINT] = files.digest([rendered, *read])
    return config


def _foresee(machine: Machine, instance: Instance, log: Path) -> list[str]:
    layout = machine.layout
    config = _config(machine, _apps(machine, instance))
    files.write_receipt(layout.kept(layout.rendered(instance.gpu)), config)
    return []


def _render(machine: Machine, instance: Instance, log: Path) -> None:
    layout = machine.layout
    wanted = _apps(machine, instance)
    for each in wanted:
        write_secrets(layout, each)
    path = layout.rendered(instance.gpu)
    files.write_receipt(path, _config(machine, wanted))
    files.write_receipt(
        _receipt(layout, instance.gpu),
        {"inputs": _inputs(machine, instance), "config": files.file_digest(path)},
    )
