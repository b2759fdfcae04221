"""Whether the machine is well, as the commands say it by their exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...engine.run import Run
from ...generation import last_good
from ...host.comfyui import health_client, machine_state
from ...host.comfyui.machine_state import Row, Survey
from ...pm2 import stage as configs
from ...server import client
from ...spec import Instance

INSTANCES = "/health/comfyui/instances"


def take(run: Run, instances: Sequence[Instance]) -> Survey:
    """What runs of the machine, and how it is."""
    workers = {
        configs.worker_name(worker, instance): instance.gpu
        for worker in run.machine.workers
        for instance in instances
    }
    found = machine_state.take(
        run.layout,
        instances,
        workers,
        run.machine.health.timeout,
        warms=run.machine.health.warmup is not None,
    )
    answer = health_client.ask(client(run), INSTANCES) if run.machine.health.server else None
    told = answer[1].get("instances", {}) if answer else {}
    return replace(found, instances=[_completed(row, told) for row in found.instances])


def _completed(row: Row, told: dict[str, Any]) -> Row:
    """What the health server knows beyond one look: nodes, models, jobs of its own."""
    known = told.get(str(row.gpu), {})
    running = known.get("layers", {}).get("running", {})
    if row.health != "healthy" or running.get("pid") != row.pid:
        return row
    match known["status"]:
        case "healthy":
            return row
        case "degraded":
            parts = [*row.note.split("; "), *known["reason"].split("; ")]
            return replace(row, note="; ".join(filter(None, dict.fromkeys(parts))))
    return replace(row, health=known["status"], reason=known["reason"])


def faults(run: Run, found: Survey) -> list[str]:
    """What is wrong, a sentence each, the worst first; empty when all is well."""
    wrong = [said_of(row) for row in found.instances if row.health != "healthy"]
    if not found.instances and run.machine.enabled:
        wrong.append(why_none(run))
    wrong += [
        f"{app.name} (pid {app.pid}) runs too, and machine.yaml names it no more"
        for app in found.strangers
    ]
    if behind := last_good.refusal(run):
        wrong.append(f"behind machine.yaml: {behind}")
    return wrong


def said_of(row: Row) -> str:
    """The state of an instance in one sentence."""
    return f"{row.instance} is {row.health}" + (f": {row.reason}" if row.reason else "")


def why_none(run: Run) -> str:
    if not run.machine.enabled:
        return "no instances: ENABLE_COMFYUI is false"
    return "no instances: instances.gpus is auto, and there is no GPU here"
