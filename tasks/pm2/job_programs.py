"""What the programs of jobs are told, and the worker that runs jobs beside each instance."""

from __future__ import annotations

import socket
import sys
from typing import Any

from .. import ports
from ..engine.run import Run
from ..host.pm2 import apps
from ..host.system import files
from ..spec import Instance, Jobs, Worker
from ..spec.job_checks import WORKER
from ..spec.model import JobsTls
from . import own_service

DAY = 86400.0
"""Seconds."""
CREDENTIALS, TOKEN = "JOBS_CREDENTIALS", "JOBS_TOKEN"
"""The variables with what NATS asks for, and with what the gateway asks for."""
WEBHOOK_SECRET = "JOBS_WEBHOOK_SECRET"
"""The variable with what the scheduler signs webhooks with."""
ACCESS_KEY, SECRET_KEY = "JOBS_STORE_ACCESS_KEY", "JOBS_STORE_SECRET_KEY"
"""Those with what the object store asks for."""


def names(run: Run) -> list[str]:
    """The apps of jobs that this machine should run, in the order in which they start."""
    jobs = run.machine.wanted_jobs
    if jobs is None:
        return []
    return [*([] if jobs.url else [apps.JOBS_SERVER]), apps.SCHEDULER, apps.GATEWAY]


def server_port(run: Run) -> int | None:
    """The port of our NATS server; None: this machine has none."""
    jobs = run.machine.wanted_jobs
    return None if jobs is None or jobs.url else ports.jobs_port(run, jobs)


def settings(run: Run, jobs: Jobs) -> dict[str, Any]:
    """What each of them gets: `services/jobs/job_settings.py` reads it."""
    return {
        "workspace": str(run.machine.workspace),
        "machine": run.machine.machine_id or socket.gethostname(),
        "url": jobs.url or f"nats://127.0.0.1:{ports.jobs_port(run, jobs)}",
        "token_file": None if jobs.url else str(run.layout.jobs_token),
        "tls": tls(jobs),
        "replicas": jobs.replicas,
        "attempts": jobs.attempts,
        "max_queued": jobs.max_queued,
        "keep": jobs.keep * DAY,
        **_shared(jobs),
    }


def _shared(jobs: Jobs) -> dict[str, Any]:
    """What is for several machines."""
    if not jobs.url:
        return {}
    store = jobs.store and {
        "url": jobs.store.url, "endpoint": jobs.store.endpoint, "region": jobs.store.region,
    }  # fmt: skip
    return {"shared": True, "store": store}


def tls(jobs: Jobs) -> dict[str, str | None] | None:
    """The files for a connection with TLS; None: without, unless the server asks for it."""
    if jobs.tls is None and not (jobs.url or "").startswith("tls:"):
        return None
    return {name: str(path) if path else None for name, path in jobs.tls or JobsTls()}


def gateway_settings(run: Run, jobs: Jobs) -> dict[str, Any]:
    """What the gateway gets: `services/gateway/gateway_settings.py` reads it."""
    return {
        **settings(run, jobs),
        "listen": jobs.listen,
        "port": ports.gateway_port(run, jobs),
    }


def variables(jobs: Jobs) -> dict[str, str]:
    """What is in no file that others can read."""
    return {CREDENTIALS: jobs.credentials} if jobs.credentials else {}


def store_keys(jobs: Jobs) -> dict[str, str]:
    """The same for what moves files."""
    store = jobs.store
    return {ACCESS_KEY: store.access_key, SECRET_KEY: store.secret_key} if store else {}


def worker(run: Run, instance: Instance) -> Worker | None:
    """The worker that runs jobs on this instance; None: jobs are off.

    It is replaced when its settings or our code change, and its instance is not.
    """
    jobs = run.machine.wanted_jobs
    if jobs is None:
        return None
    file = own_service.settings_file(run.layout, f"{WORKER}-gpu{instance.gpu}")
    module = "comfy_machine.services.jobs.instance_worker"
    parts = [settings(run, jobs), own_service.code_digest()]
    return Worker.model_construct(
        name=WORKER,
        command=(sys.executable, "-I", "-m", module, str(file)),
        env={
            **variables(jobs),
            **store_keys(jobs),
            "JOBS_INSTANCE": instance.name,
            "JOBS_GPU": str(instance.gpu),
            "JOBS_DIGEST": files.digest(parts),
        },
    )
