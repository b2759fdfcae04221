"""Checks across the fields of a machine file.

They work on the raw data and skip what the model refuses, so that one invalid field doesn't hide
the problems of others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import job_checks, tls, workflow_file
from .fields import check_name, check_path, check_target
from .job_checks import WORKER
from .model import Health, Instances, Jobs
from .paths import STORE, absolute
from .problems import Loc, shown
from .urls import parse_remote, repository_name
from .variable_references import DEVICE, check_device, names_instance

_NAMING = ("name", "url", "id", "path")
"""The fields that name a custom node; the first that is given does."""
Finding = tuple[Loc, str]
"""A location in the file, and what is wrong there."""


def check_all(data: dict[Any, Any], folder: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """All problems that concern more than one field."""
    yield from check_comfyui(data)
    yield from check_torch(data)
    yield from check_nodes(data)
    yield from check_ports(data)
    yield from check_devices(data)
    yield from tls.check(section(data, "instances"))
    yield from check_models(data)
    yield from check_workers(data)
    yield from job_checks.check(data.get("jobs"))
    for name, what in workflow_file.check(section(data, "health"), folder, environ):
        yield ("health", name), what
    yield from check_paths(data, folder, environ)


def section(data: Any, *names: str | int) -> dict[Any, Any]:
    """A section of the file; empty if it is absent or not a mapping."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def entries(data: Any, *names: str) -> list[tuple[Loc, dict[Any, Any]]]:
    """The mappings in a list of the file, with their locations."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    items = data if isinstance(data, list) else []
    return [((*names, i), item) for i, item in enumerate(items) if isinstance(item, dict)]


def node_name(node: dict[Any, Any]) -> str | None:
    """The folder name of a custom node; None when its entry can't be read."""
    for key in _NAMING:
        value = node.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            return None
        if key in ("name", "id"):
            return value
        if key == "path":
            return Path(value).name
        try:
            return repository_name(parse_remote(value).url)
        except ValueError:
            return None
    return None


def check_comfyui(data: dict[Any, Any]) -> Iterator[Finding]:
    comfyui = section(data, "comfyui")
    loc: Loc = ("comfyui",)
    if comfyui.get("path") is not None:
        for other in ("repo", "ref"):
            if comfyui.get(other) is not None:
                yield (*loc, other), "has no meaning beside path: remove one of them"
    yield from _ref_twice(comfyui, loc, "repo")


def check_torch(data: dict[Any, Any]) -> Iterator[Finding]:
    """NVML finds only NVIDIA GPUs, so other backends need cpu_only."""
    torch = section(data, "python").get("torch")
    is_other = isinstance(torch, str) and re.fullmatch(r"rocm\d[\d.]*|xpu", torch)
    if is_other and section(data, "instances").get("cpu_only") is not True:
        why = "is for GPUs that comfy-machine can't find: it finds only NVIDIA GPUs"
        yield ("python", "torch"), f"{torch} {why}; set instances.cpu_only, or another torch"


def _ref_twice(entry: dict[Any, Any], loc: Loc, key: str) -> Iterator[Finding]:
    url, ref = entry.get(key), entry.get("ref")
    if not isinstance(url, str) or not isinstance(ref, str):
        return
    try:
        named = parse_remote(url).ref
    except ValueError:
        return
    if named is not None and named != ref:
        yield (*loc, "ref"), f"is {shown(ref)}, but {key} names {shown(named)}: keep one"


def check_nodes(data: dict[Any, Any]) -> Iterator[Finding]:
    names: list[Finding] = []
    for loc, node in entries(data, "custom_nodes"):
        yield from _node_source(node, loc)
        yield from _ref_twice(node, loc, "url")
        name = node_name(node)
        if name is None:
            continue
        key = next(key for key in _NAMING if node.get(key) is not None)
        if key in ("url", "path"):
            try:
                check_name(name)
            except ValueError as error:
                folder, at, ref = name.partition("@")
                why = f"write ref: {shown(ref)} beside it, and {shown(folder)} without @"
                yield (*loc, key), why if at and key == "url" else f"{error} (name: …)"
                continue
        names.append(((*loc, key), name))
    yield from _twice(names, "custom node", fold=True)


def _node_source(node: dict[Any, Any], loc: Loc) -> Iterator[Finding]:
    """Where a custom node comes from: one place, and nothing that belongs to another."""
    has = {name for name, value in node.items() if value is not None}
    if not has & {"url", "id", "path"}:
        yield (
            loc,
            "needs url: (a git repository), id: (one in the registry) or path: (a local directory)",
        )
    if "path" in has:
        for other in ("url", "id", "ref", "version", "recursive"):
            if other in has:
                yield (*loc, other), "has no meaning beside path: remove one of them"
        if "env" in has:
            # Nothing is written into the user's folder.
            yield (*loc, "env"), "has no meaning beside path: put a .env into that folder"
        return
    if "id" in has:
        for other in ("url", "recursive"):
            if other in has:
                yield (*loc, other), "has no meaning beside id: remove one of them"
        if "ref" in has:
            yield (*loc, "ref"), "has no meaning beside id: write version:, or url: instead of id:"
    elif "version" in has:
        instead = "write ref:" if "url" in has else "it needs id:"
        yield (*loc, "version"), f"is a version of the registry: {instead}"


def _twice(found: Iterable[Finding], what: str, *, fold: bool = False) -> Iterator[Finding]:
    first: dict[str, Loc] = {}
    for loc, name in found:
        other = first.setdefault(name.casefold() if fold else name, loc)
        if other is not loc:
            place = f"{other[-3]}[{other[-2]}]" if isinstance(other[-2], int) else str(other[-1])
            yield loc, f"{what} {shown(name)} is also {place}: give each its own name"


def _integers(value: Any) -> list[int] | None:
    """The GPU indices; None for `auto` and invalid values."""
    if type(value) is int and 0 < value <= 256:
        return list(range(value))
    if isinstance(value, list) and all(type(item) is int for item in value):
        return value
    return None


def check_overrides(data: dict[Any, Any]) -> Iterator[Finding]:
    instances = section(data, "instances")
    gpus = _integers(instances.get("gpus"))
    if gpus is None:
        return
    for gpu in section(instances, "overrides"):
        if type(gpu) is int and gpu >= 0 and gpu not in gpus:
            listed = ", ".join(map(str, gpus[:8])) + (", …" if len(gpus) > 8 else "")
            yield ("instances", "overrides", gpu), f"GPU {gpu} has no instance: gpus is {listed}"


def check_ports(data: dict[Any, Any]) -> Iterator[Finding]:
    """Ports that two instances, or an instance and a service of ours, would share.

    With `gpus: auto`, the GPUs named in overrides are assumed to exist.
    """
    instances = section(data, "instances")
    overrides = section(instances, "overrides")
    start = instances.get("port_start")
    if start is None:
        start = Instances.model_fields["port_start"].default
    named = [gpu for gpu in overrides if type(gpu) is int and 0 <= gpu < 256]
    gpus = _integers(instances.get("gpus")) or list(range(max(named, default=0) + 1))
    owners: dict[int, str] = {}
    health = section(data, "health")
    if health.get("server") is not False:
        port, default = health.get("port"), Health.model_fields["port"].default
        owners[port if type(port) is int else default] = "health.port"
    for field, port in _ports_of_jobs(data.get("jobs")):
        if owners.setdefault(port, f"jobs.{field}") != f"jobs.{field}":
            yield ("jobs", field), f"port {port} is also {owners[port]}"
    counted = [gpu for gpu in gpus if section(overrides, gpu).get("port") is None]
    ports: list[tuple[Loc, int, Any]] = []
    if type(start) is int and 1 <= start <= 65535:
        loc: Loc = ("instances", "port_start")
        ports += [(loc, gpu, start + gpu) for gpu in counted if start + gpu <= 65535]
        if counted and start + max(counted) > 65535:
            yield loc, f"GPU {max(counted)} would have port {start + max(counted)}, above 65535"
    for gpu in sorted(set(gpus) - set(counted)):
        ports.append((("instances", "overrides", gpu, "port"), gpu, overrides[gpu]["port"]))
    for loc, gpu, port in ports:
        name = f"comfyui-gpu{gpu}'s"
        if type(port) is int and owners.setdefault(port, name) != name:
            yield loc, f"port {port} of comfyui-gpu{gpu} is also {owners[port]}"


def _ports_of_jobs(jobs: Any) -> Iterator[tuple[str, int]]:
    """The field and the port of each service of jobs that this machine has."""
    if not isinstance(jobs, dict):
        return
    for name in ("port", "gateway_port"):
        port, default = jobs.get(name), Jobs.model_fields[name].default
        if name != "port" or jobs.get("url") is None:
            yield name, port if type(port) is int else default


def check_devices(data: dict[Any, Any]) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES of an instance may only name a part of a GPU (MIG)."""
    overrides = section(data, "instances", "overrides")
    locs: list[Loc] = [("instances",), *(("instances", "overrides", gpu) for gpu in overrides)]
    for loc in locs:
        env = section(data, *loc, "env")
        if DEVICE in env and (why := check_device(env[DEVICE])):
            yield (*loc, "env", DEVICE), why


def check_models(data: dict[Any, Any]) -> Iterator[Finding]:
    targets: dict[str, Loc] = {}
    for loc, file in entries(data, "models", "files"):
        given = [key for key in ("source", "url") if file.get(key) is not None]
        if not given:
            yield loc, "needs url: (a download) or source: (a file or folder on this machine)"
        elif len(given) > 1:
            yield (*loc, "url"), "has no meaning beside source: remove one of them"
        try:
            target = check_target(file.get("target", ""))
        except (ValueError, TypeError, AttributeError):
            continue
        other = targets.setdefault(target, loc)
        if other is not loc:
            yield (*loc, "target"), f"{shown(target)} is also models.files[{other[-1]}]"
    for target, loc in targets.items():
        parent = target
        while parent := parent.rpartition("/")[0]:
            if parent in targets:
                yield (*loc, "target"), f"lies below {shown(parent)}, which is a model itself"


def check_workers(data: dict[Any, Any]) -> Iterator[Finding]:
    workers = entries(data, "workers")
    names = [((*loc, "name"), worker.get("name")) for loc, worker in workers]
    yield from _twice([(loc, name) for loc, name in names if isinstance(name, str)], "worker")
    has_jobs = isinstance(data.get("jobs"), dict)
    for loc, worker in workers:
        if has_jobs and worker.get("name") == WORKER:
            yield (*loc, "name"), f"{WORKER} is the name of the worker of jobs: give another"
        health = section(worker, "health")
        given = [name for name in ("url", "command") if health.get(name) is not None]
        if worker.get("health") is not None and len(given) != 1:
            yield (*loc, "health"), "needs either url or command"
        if worker.get("per") == "machine":
            values = {("env", key): value for key, value in section(worker, "env").items()}
            for place, value in (values | {("health", "url"): health.get("url")}).items():
                if isinstance(value, str) and names_instance(value):
                    yield (*loc, *place), "per: machine has no instance to name"


def check_paths(
    data: dict[Any, Any], folder: Path, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Folders that must not be inside each other."""

    def place(base: Path, value: Any, default: str) -> Path | None:
        text = default if value is None else value
        try:
            return absolute(base, check_path(text), environ) if isinstance(text, str) else None
        except ValueError:
            return None

    comfyui = section(data, "comfyui")
    workspace = place(folder, data.get("workspace"), "")
    if workspace is None or data.get("workspace") is None:
        return
    if workspace == Path("/"):
        yield ("workspace",), "must be a folder of its own, not /"
        return
    install = place(workspace, comfyui.get("install_path"), "ComfyUI")
    models = place(workspace, section(data, "models").get("folder"), "shared/models")
    source = place(folder, comfyui.get("path"), "") if comfyui.get("path") is not None else None
    machine = workspace / ".machine"
    outside = "must not be the workspace, around it, or in .machine"
    if install is not None:
        if workspace.is_relative_to(install) or install.is_relative_to(machine):
            yield ("comfyui", "install_path"), outside
        elif models is not None and (
            models.is_relative_to(install) or install.is_relative_to(models)
        ):
            yield ("models", "folder"), "and comfyui.install_path must not lie in one another"
    if models is not None and (models.is_relative_to(machine) or workspace.is_relative_to(models)):
        yield ("models", "folder"), outside
    if models is not None:
        yield from _check_models_places(data, models, lambda text: place(workspace, text, ""))
    if source is not None and workspace.is_relative_to(source):
        yield ("comfyui", "path"), "holds the workspace, so it can't be copied into it"


def _check_models_places(
    data: dict[Any, Any], folder: Path, place: Callable[[Any], Path | None]
) -> Iterator[Finding]:
    """Roots given twice, a misplaced store, and files that would link to themselves."""
    roots = {folder: "models.folder"}
    for loc, root in entries(data, "models", "extra_roots"):
        path = place(root.get("path", 0))
        name = f"models.extra_roots[{loc[-1]}]"
        if path is not None and roots.setdefault(path, name) != name:
            yield (*loc, "path"), f"is also {roots[path]}: remove one of them"
    store = place(section(data, "models").get("store", 0))
    if store is not None and any(root.is_relative_to(store) for root in roots):
        yield ("models", "store"), "must be a folder of its own, not one of models or around it"
    if store is not None and store.parent in roots and not store.name.startswith("."):
        yield ("models", "store"), "would be a folder of models there: begin its name with a dot"
    store_path = store or folder / STORE
    for loc, file in entries(data, "models", "files"):
        source, target = file.get("source"), file.get("target")
        if not isinstance(target, str):
            continue
        if f"{folder}/{target}/".startswith(f"{store_path}/"):
            yield (*loc, "target"), "lies in the store: give another folder"
        same_name = isinstance(source, str) and source.endswith(target.rpartition("/")[2])
        if same_name and place(source) == folder / target:
            yield (*loc, "source"), "is the target itself: remove the entry, the file is in place"
