"""How the apps of a config are started: what workers get that isn't in their fingerprint.

A new version of this project, another host or another `drain_timeout` restarts no worker.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from ..engine.run import Run
from ..host.pm2 import apps, pm2
from ..spec.job_checks import WORKER
from . import stage


def start(run: Run, configs: Sequence[dict[str, Any]]) -> None:
    """Start these apps of PM2 configs; each replaces the app of its name."""
    workers = {
        stage.worker_name(worker, instance): worker
        for instance in run.instances
        for worker in stage.workers_of(run, instance)
    }
    ready = []
    for config in configs:
        if worker := workers.get(config["name"]):
            grace = worker.stop_timeout or run.machine.instances.drain_timeout
            env = {**_variables(run, config), **config["env"]}
            if run.machine.machine_id is None and "WORKER_ID" not in worker.env:
                env["WORKER_ID"] = f"{socket.gethostname()}-{config['name']}"
            if run.machine.wanted_jobs and worker.name == WORKER:
                env["WORKER_STOP_TIMEOUT"] = str(grace)
            config = {**config, "kill_timeout": grace * 1000, "env": env}
        ready.append(config)
    pm2.start(run.layout, ready)


def _variables(run: Run, config: dict[str, Any]) -> dict[str, str]:
    """The names that workers of others know."""
    env = config["env"]
    known = {"COMFYUI_HOST": "WORKER_COMFYUI_HOST", apps.PORT: "WORKER_COMFYUI_PORT"}
    return {name: env[ours] for name, ours in known.items() if ours in env}
