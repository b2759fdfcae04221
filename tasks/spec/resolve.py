"""Turns a valid machine.yaml into a Machine: names, repositories and absolute paths filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .downloads import DEFAULT_TOKENS
from .machine import Machine
from .model import (
    COMFYUI_REPO,
    SMOKE,
    ComfyUI,
    CustomNode,
    Health,
    Instances,
    Jobs,
    Models,
    Python,
    Registry,
    Spec,
    Worker,
)
from .paths import STORE, absolute
from .urls import parse_remote, repository_name


def resolve(
    spec: Spec,
    file: Path,
    env: Mapping[str, str],
    enabled: bool,
    selected_nodes: tuple[str, ...] | None,
) -> Machine:
    """Make a Machine of a valid Spec. `file` is absolute. Raises ValueError without HOME."""
    folder = file.parent
    # One workspace has one path, whichever link leads to it.
    workspace = Path(os.path.realpath(absolute(folder, spec.workspace, env)))
    return Machine.model_construct(
        file=file,
        workspace=workspace,
        comfyui=_comfyui(spec.comfyui, folder, workspace, env),
        python=_python(spec.python, folder, env),
        custom_nodes=tuple(_node(node, folder, env) for node in spec.custom_nodes),
        registry=_registry(spec.registry, folder, env),
        models=_models(spec.models, workspace, env),
        instances=_instances(spec.instances, workspace, env),
        health=_health(spec.health, folder, env),
        machine_id=spec.machine_id,
        workers=tuple(_worker(worker, workspace, env) for worker in spec.workers),
        jobs=_jobs(spec.jobs, folder, env) if spec.jobs else None,
        retention=spec.retention,
        enabled=enabled,
        selected_nodes=selected_nodes,
        env=dict(env),
    )


def _comfyui(comfyui: ComfyUI, folder: Path, workspace: Path, env: Mapping[str, str]) -> ComfyUI:
    changes: dict[str, Any] = {"install_path": absolute(workspace, comfyui.install_path, env)}
    if comfyui.path is not None:
        changes["path"] = absolute(folder, comfyui.path, env)
    else:
        remote = parse_remote(comfyui.repo or COMFYUI_REPO)
        changes |= {"repo": remote.url, "ref": comfyui.ref or remote.ref}
    return comfyui.model_copy(update=changes)


def _node(node: CustomNode, folder: Path, env: Mapping[str, str]) -> CustomNode:
    if node.url is not None:
        remote = parse_remote(node.url)
        name = node.name or repository_name(remote.url)
        changes: dict[str, Any] = {"url": remote.url, "ref": node.ref or remote.ref, "name": name}
    elif node.id is not None:
        changes = {"name": node.name or node.id}
    else:
        path = absolute(folder, node.path or "", env)
        changes = {"path": path, "name": node.name or path.name}
    return node.model_copy(update=changes)


def _registry(registry: Registry, folder: Path, env: Mapping[str, str]) -> Registry:
    places = (
        each if "://" in each else str(absolute(folder, each, env)) for each in registry.advisories
    )
    return registry.model_copy(update={"advisories": tuple(places)})


def _python(python: Python, folder: Path, env: Mapping[str, str]) -> Python:
    def place(link: str) -> str:
        is_url = re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", link)
        return link if is_url else str(absolute(folder, link, env))

    return python.model_copy(update={"find_links": tuple(map(place, python.find_links))})


def _instances(instances: Instances, workspace: Path, env: Mapping[str, str]) -> Instances:
    user = absolute(workspace, instances.user, env) if instances.user else None
    return instances.model_copy(update={"user": user})


def _health(health: Health, folder: Path, env: Mapping[str, str]) -> Health:
    def place(workflow: Path | None) -> Path | None:
        return workflow if workflow in (None, SMOKE) else absolute(folder, workflow, env)

    return health.model_copy(
        update={"warmup": place(health.warmup), "canary": place(health.canary)}
    )


def _worker(worker: Worker, workspace: Path, env: Mapping[str, str]) -> Worker:
    cwd = absolute(workspace, worker.cwd, env) if worker.cwd else None
    return worker.model_copy(update={"cwd": cwd})


def _jobs(jobs: Jobs, folder: Path, env: Mapping[str, str]) -> Jobs:
    if jobs.tls is None:
        return jobs
    named = {name: absolute(folder, path, env) for name, path in jobs.tls if path}
    return jobs.model_copy(update={"tls": jobs.tls.model_copy(update=named)})


def _models(models: Models, workspace: Path, env: Mapping[str, str]) -> Models:
    roots = tuple(
        root.model_copy(update={"path": absolute(workspace, root.path, env)})
        for root in models.extra_roots
    )
    files = tuple(
        file.model_copy(update={"source": absolute(workspace, file.source, env)})
        if file.source
        else file
        for file in models.files
    )
    folder = absolute(workspace, models.folder, env)
    store = absolute(workspace, models.store, env) if models.store else folder / STORE
    return models.model_copy(
        update={
            "folder": folder,
            "store": store,
            "extra_roots": roots,
            "tokens": {**DEFAULT_TOKENS, **models.tokens},
            "files": files,
        }
    )
