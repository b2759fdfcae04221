"""A service of ours beside the instances: the health server, the watcher, those of jobs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..host.comfyui import api
from ..host.pm2 import apps, pm2
from ..host.system import files, process, program_files
from ..host.system.failure import Failure
from ..spec.layout import Layout
from . import app
from .app import App

CODE = ("host", "services", "spec")
"""The folders of `tasks` that services import from."""
STARTS = 15.0
"""Seconds that a service may take to be ready; on a busy core its imports take two."""


def settings_file(layout: Layout, name: str) -> Path:
    """The service's settings, its only argument."""
    return layout.apps / f"{name}.json"


def declare(
    run: Run, name: str, module: str, settings: Any, named: Mapping[str, str] | None = None
) -> App:
    """The app that runs `module`; `named` are variables of machine.yaml.

    Its fingerprint covers our code and templates, and its settings, so that a service with older
    code or settings is replaced. Raises Failure for a variable that isn't set.
    """
    layout = run.layout
    command = [sys.executable, "-I", "-m", module, str(settings_file(layout, name))]
    declared = app.declare(run, name, layout.workspace, command, {}, named or {})
    parts = asdict(declared) | {"secrets": app.secret_hashes(layout, declared)}
    declared.env[apps.FINGERPRINT] = files.digest([parts, settings, code_digest()])
    return declared


@lru_cache
def code_digest() -> str:
    """A digest of all code and templates that a service can load."""
    from ..host.system import templates

    top = program_files.PACKAGE
    code = [path for folder in CODE for path in sorted((top / folder).rglob("*.py"))]
    return files.digest([*map(files.file_digest, [*code, *sorted(templates.FOLDER.iterdir())])])


def running(layout: Layout, name: str) -> apps.App | None:
    return next((each for each in pm2.running(layout) if each.name == name), None)


def why_restart(declared: App, current: apps.App | None) -> str | None:
    """Why the service must start or restart; None: it runs as declared."""
    if current is None or not current.supervised:
        return f"{declared.name} isn't running"
    if current.fingerprint != declared.env[apps.FINGERPRINT]:
        return f"{declared.name} runs with other settings or older code"
    return None


def stop(layout: Layout, running: apps.App | None) -> None:
    """End a service, if it runs, before another process takes its place or nothing does."""
    if running is None:
        return
    if running.supervised:
        pm2.delete(layout, {running.name}, "replaced")
    else:
        pm2.end_orphan(running)


def remove_secrets(layout: Layout, name: str, kept: Path | None) -> None:
    """Remove a service's old secrets files; the names of workers' files contain their GPU."""
    for path in layout.secrets.glob(f"{name}-{'[0-9a-f]' * 12}.json"):
        if path != kept:
            files.remove(path)


def start(
    layout: Layout,
    declared: App,
    is_ready: Callable[[], bool] | None = None,
    within: float = STARTS,
) -> None:
    """Start a service and wait until it is ready: by default, until it has written the file that
    says so.

    Raises Failure when that takes longer than `within` seconds.
    """
    from ..host.system import templates

    ready = settings_file(layout, declared.name).with_suffix(".ready.json")
    files.remove(ready)
    pm2.start(layout, json.loads(templates.render(app.TEMPLATE, apps=[asdict(declared)]))["apps"])
    deadline = time.monotonic() + within
    while not (is_ready or ready.exists)():
        if time.monotonic() > deadline:
            log = layout.log(declared.name)
            last_line = process.last_line(process.tail(log))
            raise Failure(f"{declared.name} doesn't start: {last_line}", log)
        time.sleep(api.POLL)
