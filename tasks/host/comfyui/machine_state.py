"""The state of a machine: its instances and workers at this moment. Reads only, and never waits.

Asks PM2 over its socket, and all instances at once, at the ports that they were started with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...spec import Instance
from ...spec.layout import Layout
from ..pm2 import app_state, apps, daemon_socket, pm2
from ..pm2.app_state import AppState
from ..system import files, heartbeat, nats_server, private_folder, usage
from ..system.run_lock import Holder, RunLock
from . import api, condition, job_apps, judge, started_with, symptoms, warmup
from .condition import Condition
from .job_apps import JobApp
from .judge import Observation, Rules


@dataclass(frozen=True)
class InstanceState:
    """One instance. `queue` is the number of its jobs; None: it doesn't answer."""

    instance: str
    gpu: int
    port: int
    state: AppState
    queue: int | None
    conditions: Sequence[Condition]
    """The conditions that aren't healthy, the worst first."""
    restarted: str
    """When and why the watcher last restarted it; empty: it didn't."""

    @property
    def ready(self) -> Condition:
        return condition.ready(self.conditions)

    @property
    def note(self) -> str:
        """Further messages, about what doesn't make it unhealthy."""
        rest = dict.fromkeys(each.message for each in self.conditions if each.is_healthy)
        rest.pop(self.ready.message, None)
        return "; ".join(filter(None, [self.restarted, *rest]))


@dataclass(frozen=True)
class WorkerState:
    """One worker of one instance."""

    worker: str
    gpu: int
    state: AppState
    fault: Condition | None
    """What is wrong with its process; None: nothing."""


@dataclass(frozen=True)
class MachineState:
    """The state of the whole machine."""

    instances: list[InstanceState]
    workers: list[WorkerState]
    jobs: Sequence[JobApp]
    strangers: list[apps.App]
    """Running apps of this workspace that machine.yaml doesn't name."""
    watcher: int | None
    """The pid of the watcher."""
    watcher_fault: str | None
    """What is wrong with the watcher; None: nothing."""
    run: Holder | None
    """The run in progress."""


def read(
    layout: Layout,
    instances: Sequence[Instance],
    workers: Mapping[str, int],
    rules: Rules,
    *,
    warms: bool = False,
    jobs: Sequence[str] = (),
    jobs_port: int | None = None,
) -> MachineState:
    """Observe everything. `workers`: name → GPU; `warms`: there is a warm-up job; `jobs`: its
    programs, and the port of our NATS server. Never raises for what it finds."""
    with ThreadPoolExecutor(len(instances) + 2) as pool:
        answering = pool.submit(nats_server.answers, jobs_port) if jobs_port else None
        answer = daemon_socket.ask(private_folder.folder(layout.workspace))
        daemon = answer.daemon if answer else pm2.daemon(layout)
        running = apps.running(layout.workspace, daemon)
        by_name = {app.name: app for app in running}
        probes = [pool.submit(_probe, each, by_name.get(each.name)) for each in instances]
        memory = usage.resident_each(app.pid for app in running)
        answers = [probe.result() for probe in probes]
        silent = jobs_port if answering and not answering.result() else None
    known = {app["name"]: app.get("pm2_env") for app in answer.apps or []} if answer else {}

    def state(name: str) -> AppState:
        app, entry = by_name.get(name), known.get(name)
        resident = memory.get(app.pid) if app else None
        entry = entry if isinstance(entry, dict) else None
        return app_state.of(app, resident, entry, layout, name)

    watcher = by_name.get(apps.WATCHER)
    named = {each.name for each in instances} | {*workers, *jobs, apps.WATCHER, apps.SERVER}
    return MachineState(
        [
            _instance(layout, each, state(each.name), answered, rules, warms)
            for each, answered in zip(instances, answers, strict=True)
        ],
        [
            WorkerState(name, gpu, own := state(name), judge.process_fault(own, name))
            for name, gpu in workers.items()
        ],
        job_apps.look({name: state(name) for name in jobs}, silent),
        [app for app in running if app.name not in named],
        watcher.pid if watcher else None,
        heartbeat.fault(layout.workspace, (watcher.pid, watcher.started) if watcher else None),
        RunLock(layout.workspace).run(),
    )


def _probe(instance: Instance, app: apps.App | None) -> api.ProbeResult:
    if app is None:
        return api.probe(instance.listen, instance.port, scheme=instance.scheme)
    listen = started_with.listens_on(app.pid, instance.listen)
    return api.probe(listen, _port(instance, app), scheme=app.scheme)


def _port(instance: Instance, app: apps.App | None) -> int:
    """The port that it was started with; machine.yaml's if it doesn't run."""
    return app.port if app and app.port else instance.port


def _instance(
    layout: Layout,
    instance: Instance,
    state: AppState,
    answer: api.ProbeResult,
    rules: Rules,
    warms: bool,
) -> InstanceState:
    gpu, app = instance.gpu, state.app
    symptom, restarted = watched(layout.watched(gpu), app)
    cold = bool(warms and app and warmup.is_cold(layout, gpu, app))
    observation = Observation(
        name=instance.name,
        state=state,
        answer=answer,
        symptom=symptom,
        cold=cold,
        warmup=warmup.outcome(layout, gpu, app) if cold and app else None,
        draining=layout.draining(gpu).exists(),
    )
    # If our process doesn't run, another program answers at the port.
    queue = answer.queue if app else None
    found = judge.judge(observation, rules)
    return InstanceState(instance.name, gpu, _port(instance, app), state, queue, found, restarted)


def watched(file: Path, app: apps.App | None) -> tuple[Condition | None, str]:
    """What the watcher found wrong with this process, and when and why it last restarted it."""
    record = files.read_receipt(file)
    why, restarted = record.get("reason"), record.get("restarted")
    wrong = None
    if why and app is not None and record.get("pid") == app.pid:
        wrong = symptoms.symptom(condition.reason(record.get("code")), str(why))
    at = app_state.number(record, "at") or 0
    # Only of the process that was started then; the boot time is known to the second.
    if not restarted or app is None or not 0 < app.started - 1 <= at < 1 << 34:
        return wrong, ""
    return wrong, f"restarted {time.strftime('%F %T', time.localtime(at))}: {restarted}"
