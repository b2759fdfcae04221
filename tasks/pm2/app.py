"""An app of PM2: its command, environment and secrets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..generation import last_good
from ..host.pm2 import apps
from ..host.system import files
from ..host.system.program_files import SERVICES
from ..spec.layout import Layout
from ..variables import expand_or_fail

TEMPLATE = "instance.config.json.j2"
SHIM = SERVICES / "shim.py"


@dataclass(frozen=True)
class App:
    """An app for PM2: an instance, a worker, or a service of ours."""

    name: str
    cwd: str
    command: list[str]
    env: dict[str, str]
    log: str
    secrets: dict[str, str]
    """Variables whose values came from the environment; kept in a file of mode 0600."""
    dotenvs: dict[str, str] = field(default_factory=dict)
    """Custom node → the text of its .env, with secrets."""
    model_paths: str | None = None
    """The text of its extra_model_paths.yaml."""


def secrets_file(layout: Layout, name: str, variables: Mapping[str, str]) -> Path:
    """The file with these variables. Its name depends on them, so older configs keep theirs."""
    digest = last_good.keyed_hash(layout, json.dumps(variables))[:12]
    return layout.secrets / f"{name}-{digest}.json"


def declare(
    run: Run,
    name: str,
    cwd: Path,
    command: Sequence[object],
    env: Mapping[str, str],
    named: Mapping[str, str],
    shim: Sequence[str] | None = None,
) -> App:
    """Declare an app. `named` are machine.yaml's variables; those with `${NAME}` become secrets.

    `shim` are options of the exec shim, which also ends the app's children with it; None: no
    shim, unless there are secrets. Raises Failure for a variable that isn't set.
    """
    layout = run.layout
    secrets = {
        key: expand_or_fail(run, value, f"{name}, {key}")
        for key, value in named.items()
        if "${" in value
    }
    words = [str(word) for word in command]
    if secrets:
        shim = ["--env", str(secrets_file(layout, name, secrets)), *(shim or ())]
    if shim is not None:
        words = [sys.executable, "-I", str(SHIM), *shim, "--", *words]
    marks = {apps.WORKSPACE: str(run.machine.workspace), apps.NAME: name}
    public = {key: value for key, value in named.items() if key not in secrets}
    log = layout.logs / f"{name}.log"
    return App(name, str(cwd), words, {**env, **public, **marks}, str(log), secrets)


def write_secrets(layout: Layout, app: App) -> None:
    """Write the file from which the shim reads an app's secrets."""
    if app.secrets:
        file = secrets_file(layout, app.name, app.secrets)
        files.write_text(file, json.dumps(app.secrets), mode=0o600)


def secret_hashes(layout: Layout, app: App) -> dict[str, str]:
    """Secret → its HMAC, which changes with the secret and doesn't reveal it."""
    secrets = app.secrets | {f"{node}/.env": text for node, text in app.dotenvs.items()}
    return {name: last_good.keyed_hash(layout, value) for name, value in secrets.items()}


def render_config(run: Run, declared: Sequence[App]) -> dict[str, Any]:
    """PM2's config of these apps, each with its fingerprint."""
    from ..host.system import templates

    config: dict[str, Any] = json.loads(
        templates.render(TEMPLATE, apps=[asdict(app) for app in declared])
    )
    for rendered, app in zip(config["apps"], declared, strict=True):
        files_read = [secret_hashes(run.layout, app), app.model_paths]
        rendered["env"][apps.FINGERPRINT] = files.digest([rendered, *files_read])
    return config
