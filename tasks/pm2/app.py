"""An app as PM2 runs it: its command, environment and secrets."""

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
from ..host.system.failure import Failure
from ..spec import expand
from ..spec.layout import Layout

TEMPLATE = "instance.config.json.j2"
SHIM = Path(__file__).parents[1] / "services" / "shim.py"


@dataclass(frozen=True)
class App:
    """What PM2 is to run: an instance, a worker, or a service of ours."""

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


def secrets_file(layout: Layout, name: str, variables: Mapping[str, str]) -> Path:
    """Named by what it holds: a config of before still finds what it was made with."""
    return (
        layout.secrets / f"{name}-{last_good.keyed_hash(layout, json.dumps(variables))[:12]}.json"
    )


def declare(
    run: Run,
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
    layout = run.layout
    hidden = {}
    for key, value in named.items():
        if "${" in value:
            try:
                hidden[key] = expand(value, run.machine.env)
            except KeyError as error:
                raise Failure(
                    f"{name}: the variable {error.args[0]} isn't set, {key} needs it: "
                    f"set it, or put it into {run.machine.file.parent / '.env.local'}"
                ) from None
    words = [str(word) for word in command]
    if hidden:
        shim = ["--env", str(secrets_file(layout, name, hidden)), *(shim or ())]
    if shim is not None:
        words = [sys.executable, "-I", str(SHIM), *shim, "--", *words]
    marks = {apps.WORKSPACE: str(run.machine.workspace), apps.NAME: name}
    plain = {key: value for key, value in named.items() if key not in hidden}
    return App(
        name, str(cwd), words, {**env, **plain, **marks}, str(layout.logs / f"{name}.log"), hidden
    )


def write_secrets(layout: Layout, app: App) -> None:
    """Write the file from which an app gets what nobody else is to see."""
    if app.secrets:
        file = secrets_file(layout, app.name, app.secrets)
        files.write_text(file, json.dumps(app.secrets), mode=0o600)


def secret_hashes(layout: Layout, app: App) -> dict[str, str]:
    """The app's secrets as HMACs: a rotated one is noticed, none can be read or guessed."""
    every = app.secrets | {f"{node}/.env": text for node, text in app.dotenvs.items()}
    return {name: last_good.keyed_hash(layout, value) for name, value in every.items()}


def render_config(run: Run, wanted: Sequence[App]) -> dict[str, Any]:
    """The apps as PM2 is to have them, each with its fingerprint."""
    from ..host.system import templates

    config: dict[str, Any] = json.loads(
        templates.render(TEMPLATE, apps=[asdict(app) for app in wanted])
    )
    for rendered, app in zip(config["apps"], wanted, strict=True):
        read = [secret_hashes(run.layout, app), app.model_paths]
        rendered["env"][apps.FINGERPRINT] = files.digest([rendered, *read])
    return config
