"""How the machine is, as the commands show it and as their exit codes say.

It is what the health server says, or where that says nothing, the same judgement of what the
command observes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...engine.run import Run
from ...generation import last_good
from ...host.comfyui import condition, health_client, judge, machine_condition, machine_state
from ...host.comfyui.condition import Condition
from ...host.comfyui.machine_condition import Installation, MachineObservation
from ...host.comfyui.machine_state import InstanceState, MachineState
from ...host.downloads import model_files
from ...host.downloads.model_files import Place
from ...host.generations import installed
from ...host.pm2.apps import App
from ...host.storage import full_disks
from ...host.system import run_journal
from ...host.system.program_files import PROGRAM
from ...models import stage as models
from ...pm2 import job_programs
from ...pm2 import stage as configs
from ...server import client, declared_comfyui, declared_models, declared_nodes, digest
from ...spec import Instance
from . import queue_report
from .queue_report import QueueReport

MACHINE, INSTANCES = "/health/comfyui", "/health/comfyui/instances"
CHANGED = f"machine.yaml or its lock changed since the last run: run {PROGRAM}"


@dataclass(frozen=True)
class Report:
    """What runs of the machine, and how it is."""

    found: MachineState
    ready: Condition
    """Sums up the conditions."""
    conditions: Sequence[Condition]
    """Of the machine, as `machine_condition.judge` gives them."""
    wanted: str
    """The digest of machine.yaml and the lock as they are now."""
    queue: QueueReport | None = None
    """None: jobs are off, or the health server doesn't tell."""
    workflows: Mapping[str, Mapping[str, bool | None]] = field(default_factory=dict)
    """Workflow of machine.yaml → instance → whether it has what that needs; None: not known.
    Empty where the health server doesn't tell."""

    @property
    def available(self) -> Condition:
        return next(each for each in self.conditions if each.type == "Available")

    @property
    def is_applied(self) -> bool:
        """Whether the conditions speak of machine.yaml and the lock as they are now."""
        return self.ready.observed == self.wanted


def read(run: Run, instances: Sequence[Instance]) -> Report:
    workers = {
        configs.worker_name(worker, instance): instance.gpu
        for instance in instances
        for worker in configs.workers_of(run, instance)
    }
    own = machine_state.read(
        run.layout,
        instances,
        workers,
        judge.Rules(run.machine.health.timeout, run.machine.instances.restart_unhealthy),
        warms=run.machine.health.warmup is not None,
        jobs=job_programs.names(run),
        jobs_port=job_programs.server_port(run),
    )
    told = _ask(run, INSTANCES).get("instances", {})
    completed = [_completed(each, told.get(str(each.gpu), {})) for each in own.instances]
    pairs = zip(completed, own.instances, strict=True)
    found = replace(own, instances=[theirs or ours for theirs, ours in pairs])
    answered = _ask(run, MACHINE) if all(completed) or run.machine.wanted_jobs else {}
    queue = queue_report.read(answered.get("jobs")) if run.machine.wanted_jobs else None
    machine = answered if all(completed) else {}
    wanted = digest(run)
    if conditions := [condition.read(each) for each in machine.get("conditions", [])]:
        ready = Condition(
            "Ready", machine["status"], condition.reason(machine["code"]), machine["reason"],
            machine["advice"], machine["since"], conditions[0].observed,
        )  # fmt: skip
        return Report(found, ready, conditions, wanted, queue, _workflows(told))
    observation = _observation(run, found, wanted)
    return Report(
        found,
        machine_condition.ready(observation),
        machine_condition.judge(observation),
        wanted,
        queue,
        _workflows(told),
    )


def _workflows(told: Mapping[str, Any]) -> dict[str, dict[str, bool | None]]:
    found: dict[str, dict[str, bool | None]] = {}
    for instance in told.values():
        for each in instance.get("workflows", ()):
            found.setdefault(each["name"], {})[instance["name"]] = each["ok"]
    return found


def _ask(run: Run, path: str) -> dict[str, Any]:
    """What the health server answers; empty when it says nothing of use."""
    answer = health_client.ask(client(run), path) if run.machine.health.server else None
    return answer[1] if answer and answer[0] in (200, 503) else {}


def _completed(own: InstanceState, answer: dict[str, Any]) -> InstanceState | None:
    """The health server's conditions of the same process, which it observes over time: nodes,
    models, jobs of its own. None: it has yet to notice this process, or that it isn't healthy."""
    running = answer.get("layers", {}).get("running", {})
    if running.get("pid") != (own.state.app.pid if own.state.app else None):
        return None
    told = [condition.read(each) for each in answer.get("conditions", [])]
    if not told or (told[0].is_healthy and not own.ready.is_healthy):
        return None
    return replace(own, conditions=[each for each in told if each.reason != "Healthy"])


def _observation(run: Run, found: MachineState, observed: str) -> MachineObservation:
    """What the machine is judged by, as the health server gathers it."""
    layout, lock = run.layout, run.machine.lock
    there = installed.look(layout, lock, declared_comfyui(run), declared_nodes(run))
    place = Place(layout, run.machine.models.folder, models.store_of(run).folder, lock.models)
    states = model_files.look(place, declared_models(run))
    refusal = last_good.refusal(run)
    return MachineObservation(
        enabled=run.machine.enabled,
        instances={each.instance: each.ready for each in found.instances},
        installation=Installation(
            there.generation, run.machine.lock_damage or there.reason, there.degraded
        ),
        missing=model_files.summarize(states).wrong,
        optional=model_files.optional(states),
        idle_workers={
            each.worker: each.fault.message if each.fault else "not started"
            for each in found.workers
            if each.state.app is None
        },
        faulty_workers={
            each.worker: each.fault.message
            for each in found.workers
            if each.state.app and each.fault
        },
        faulty_jobs={each.name: each.fault for each in found.jobs if each.fault},
        run=run_journal.read(layout),
        behind=refusal.reason if refusal else "",
        cordoned=[
            f"the GPU of comfyui-gpu{gpu} is cordoned {cordon}"
            for gpu, cordon in run.cordoned.items()
        ],
        watcher=found.watcher_fault,
        full=full_disks.full(layout),
        observed=observed,
    )


def told_of_stranger(app: App) -> str:
    return f"{app.name} (pid {app.pid}) runs too, and machine.yaml doesn't name it"


def why_none(run: Run) -> str:
    """Why there are no instances."""
    if not run.machine.enabled:
        return "no instances: ENABLE_COMFYUI is false"
    if run.cordoned:
        return "no instances: every GPU is cordoned"
    return "no instances: instances.gpus is auto, and there is no GPU here"
