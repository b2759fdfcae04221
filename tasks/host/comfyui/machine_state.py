"""What the instances and workers of a machine do at this moment; reads only, and waits for nobody.

PM2 is asked over its socket, and all instances at once, at the ports that they were started with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spec import Instance
from ...spec.layout import Layout
from ..pm2 import apps, daemon_socket, log_evidence, pm2, stopped_apps
from ..system import files, private_folder, usage
from ..system.run_lock import Holder, RunLock
from ..system.stat_cache import while_unchanged
from . import api, warmup
from .own_jobs import Trial

LOOPS = 2
"""Restarts of a process that never lived 30 s (PM2's `min_uptime`), from which on it loops."""


@dataclass(frozen=True)
class Row:
    """One instance as it is now: memory in bytes, its children's included; uptime in seconds.

    `health` is healthy, draining, starting, unhealthy, crash loop or down; `restarts` is None
    when PM2 doesn't say. `reason` is why it isn't healthy, `note` what else is to be known.
    """

    instance: str
    gpu: int
    port: int
    pid: int | None
    memory: int | None
    uptime: float | None
    restarts: int | None
    queue: int | None
    health: str
    reason: str
    note: str


@dataclass(frozen=True)
class WorkerRow:
    """One worker of one instance; `process` is its pid, memory and uptime as in Row."""

    worker: str
    gpu: int
    process: int | None
    memory: int | None
    uptime: float | None
    restarts: int | None
    running: bool
    reason: str


@dataclass(frozen=True)
class Survey:
    """All of it; `strangers` run for this workspace, and nothing names them any more."""

    instances: list[Row]
    workers: list[WorkerRow]
    strangers: list[apps.App]
    watcher: int | None
    """The pid of the watcher."""
    run: Holder | None


@dataclass(frozen=True)
class Seen:
    """What was found out of one app, whatever it is."""

    app: apps.App | None
    memory: int | None
    pm2: dict[str, Any] | None
    """PM2's `pm2_env` of it."""
    log: Path
    stopped: bool = False
    """It was stopped on purpose, and not started since."""

    @property
    def uptime(self) -> float | None:
        return round(max(0.0, time.time() - self.app.started), 1) if self.app else None

    @property
    def restarts(self) -> int | None:
        return _number(self.pm2, "restart_time")

    @property
    def loops(self) -> bool:
        """Whether PM2 gave it up, or starts it again and again."""
        if self.pm2 is None:
            return False
        return self.pm2.get("status") == "errored" or (
            (_number(self.pm2, "unstable_restarts") or 0) >= LOOPS
            # The count stays when it lives at last.
            and (self.uptime or 0.0) * 1000 < (_number(self.pm2, "min_uptime") or 0)
        )


def take(
    layout: Layout,
    instances: Sequence[Instance],
    workers: Mapping[str, int],
    patience: float,
    *,
    warms: bool = False,
) -> Survey:
    """Look at everything. `workers` are names and GPUs; an instance that has not answered yet,
    or with `warms` is not warm yet, counts as starting for `patience` seconds. Never raises for
    what it finds."""
    with ThreadPoolExecutor(len(instances) + 1) as pool:
        answer = daemon_socket.ask(private_folder.folder(layout.workspace))
        daemon = answer.daemon if answer else pm2.daemon(layout)
        running = apps.running(layout.workspace, daemon)
        by_name = {app.name: app for app in running}
        probes = [pool.submit(_probe, each, by_name.get(each.name)) for each in instances]
        memory = usage.resident_each(app.pid for app in running)
        health = [probe.result() for probe in probes]
    away = stopped_apps.read(layout.stopped)
    known = {app["name"]: app.get("pm2_env") for app in answer.apps or []} if answer else {}

    def seen(name: str) -> Seen:
        app, entry = by_name.get(name), known.get(name)
        resident = memory.get(app.pid) if app else None
        entry = entry if isinstance(entry, dict) else None
        return Seen(app, resident, entry, layout.log(name), name in away)

    rows = [
        _row(layout, each, seen(each.name), probed, patience, warms)
        for each, probed in zip(instances, health, strict=True)
    ]
    named = {each.name for each in instances} | set(workers) | set(apps.OURS)
    return Survey(
        rows,
        [_worker_row(name, gpu, seen(name)) for name, gpu in workers.items()],
        [app for app in running if app.name not in named],
        by_name[apps.WATCHER].pid if apps.WATCHER in by_name else None,
        RunLock(layout.workspace).run(),
    )


def _probe(instance: Instance, app: apps.App | None) -> api.Health:
    scheme = app.scheme if app else instance.scheme
    return api.probe(instance.listen, _port(instance, app), scheme=scheme)


def _port(instance: Instance, app: apps.App | None) -> int:
    """The port that it was started with; the one of machine.yaml where it doesn't run."""
    return app.port if app and app.port else instance.port


def _row(
    layout: Layout,
    instance: Instance,
    seen: Seen,
    probed: api.Health,
    patience: float,
    warms: bool,
) -> Row:
    found, restarted = watched(layout.watched(instance.gpu), seen)
    health, reason = judge(seen, probed, patience, found)
    cold = warms and seen.app and warmup.is_cold(layout, instance.gpu, seen.app)
    if health == "healthy" and cold and seen.app:
        known = warmup.read(layout, instance.gpu, seen.app)
        health, reason = warming(known, seen.uptime or 0.0, patience) or (health, reason)
    if health == "healthy" and layout.draining(instance.gpu).exists():
        health, reason = "draining", "it takes no new jobs"
    return Row(
        instance.name,
        instance.gpu,
        _port(instance, seen.app),
        seen.app.pid if seen.app else None,
        seen.memory,
        seen.uptime,
        seen.restarts,
        # Without a process of ours it is somebody else who answers there.
        probed.queue if seen.app else None,
        health,
        reason,
        "; ".join(filter(None, [restarted, orphan(seen)])),
    )


def judge(seen: Seen, probed: api.Health, patience: float, found: str) -> tuple[str, str]:
    """The health of an instance, and why it isn't better."""
    if seen.app and probed.healthy:
        return ("unhealthy", found) if found else ("healthy", "")
    if seen.loops:
        return "crash loop", why(seen)
    if seen.app is None:
        return "down", why(seen)
    if probed.refused and (seen.uptime or 0.0) < patience:
        return "starting", probed.reason
    return "unhealthy", found or probed.reason


def warming(known: Trial | None, uptime: float, patience: float) -> tuple[str, str] | None:
    """The health of an instance that answers, by its warm-up job, and why; None: it is warm."""
    if known is None:
        return ("starting" if uptime < patience else "unhealthy"), warmup.NOT_YET
    return None if known.ok else ("unhealthy", f"its warm-up job failed: {known.reason}")


_blame = while_unchanged(log_evidence.of)
"""It counts all the lines of a log, and who asks every second asks of one that has ended."""


def why(seen: Seen) -> str:
    """Why something doesn't run, as its log has it."""
    if seen.pm2 is None and seen.stopped:
        return "stopped"
    found = _blame(seen.log)
    if found is None:
        return "not started" if seen.pm2 is None else "it ended without a word"
    return str(found)


def watched(file: Path, seen: Seen) -> tuple[str, str]:
    """What the watcher finds wrong with this very process, and what it last did."""
    told = files.read_receipt(file)
    reason, restarted = told.get("reason"), told.get("restarted")
    at = _number(told, "at") or 0
    concerns = seen.app is not None and told.get("pid") == seen.app.pid
    wrong = str(reason) if concerns and reason else ""
    # Said of the process that was started then; the boot is known to the second.
    if not restarted or seen.app is None or not 0 < seen.app.started - 1 <= at < 1 << 34:
        return wrong, ""
    return wrong, f"restarted {time.strftime('%F %T', time.localtime(at))}: {restarted}"


def orphan(seen: Seen) -> str:
    return "PM2 doesn't hold it: run doit" if seen.app and not seen.app.supervised else ""


def _worker_row(name: str, gpu: int, seen: Seen) -> WorkerRow:
    return WorkerRow(
        name,
        gpu,
        seen.app.pid if seen.app else None,
        seen.memory,
        seen.uptime,
        seen.restarts,
        seen.app is not None,
        orphan(seen) if seen.app else why(seen),
    )


def _number(entry: dict[str, Any] | None, key: str) -> int | None:
    value = (entry or {}).get(key)
    return int(value) if isinstance(value, (int, float)) else None
