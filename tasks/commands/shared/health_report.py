"""How the machine is, as the commands show it and as their exit codes say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...engine.run import Run
from ...generation import last_good
from ...host.comfyui import condition, health_client, judge, machine_state
from ...host.comfyui.machine_state import InstanceState, MachineState
from ...host.pm2.apps import App
from ...pm2 import stage as configs
from ...server import client
from ...spec import Instance

INSTANCES = "/health/comfyui/instances"


def read(run: Run, instances: Sequence[Instance]) -> MachineState:
    """What runs of the machine, and how it is."""
    workers = {
        configs.worker_name(worker, instance): instance.gpu
        for instance in instances
        for worker in configs.workers_of(run, instance)
    }
    found = machine_state.read(
        run.layout,
        instances,
        workers,
        judge.Rules(run.machine.health.timeout, run.machine.instances.restart_unhealthy),
        warms=run.machine.health.warmup is not None,
    )
    answer = health_client.ask(client(run), INSTANCES) if run.machine.health.server else None
    answers = answer[1].get("instances", {}) if answer else {}
    return replace(
        found,
        instances=[_completed(each, answers.get(str(each.gpu), {})) for each in found.instances],
    )


def _completed(own: InstanceState, answer: dict[str, Any]) -> InstanceState:
    """The health server's conditions of the same process, which it observes over time: nodes,
    models, jobs of its own. Not where it has yet to notice that the instance isn't healthy."""
    running = answer.get("layers", {}).get("running", {})
    if running.get("pid") != (own.state.app.pid if own.state.app else None):
        return own
    told = [condition.read(each) for each in answer.get("conditions", [])]
    if not told or (told[0].is_healthy and not own.ready.is_healthy):
        return own
    return replace(own, conditions=[each for each in told if each.reason != "Healthy"])


def faults(run: Run, found: MachineState) -> list[str]:
    """What is wrong, a sentence each, the worst first; empty when all is well."""
    wrong = [
        each.ready.told_of(each.instance) for each in found.instances if not each.ready.is_healthy
    ]
    if not found.instances and run.machine.enabled:
        wrong.append(why_none(run))
    wrong += map(told_of_stranger, found.strangers)
    if behind := last_good.refusal(run):
        wrong.append(f"behind machine.yaml: {behind}")
    return wrong


def told_of_stranger(app: App) -> str:
    return f"{app.name} (pid {app.pid}) runs too, and machine.yaml doesn't name it"


def why_none(run: Run) -> str:
    """Why there are no instances."""
    if not run.machine.enabled:
        return "no instances: ENABLE_COMFYUI is false"
    if run.cordoned:
        return "no instances: every GPU is cordoned"
    return "no instances: instances.gpus is auto, and there is no GPU here"
