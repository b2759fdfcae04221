"""Whether the machine is well, as the commands say it by their exit codes."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import last_good
from tasks import pm2 as configs
from tasks.host import survey
from tasks.host.survey import Row, Survey
from tasks.spec import Instance, Machine


def take(machine: Machine, instances: Sequence[Instance]) -> Survey:
    """What runs of the machine, and how it is."""
    workers = {
        configs.worker_name(worker, instance): instance.gpu
        for worker in machine.workers
        for instance in instances
    }
    return survey.take(
        machine.layout,
        instances,
        workers,
        machine.health.timeout,
        warms=machine.health.warmup is not None,
    )


def faults(machine: Machine, found: Survey) -> list[str]:
    """What is wrong, a sentence each, the worst first; empty when all is well."""
    wrong = [said_of(row) for row in found.instances if row.health != "healthy"]
    if not found.instances and machine.enabled:
        wrong.append(why_none(machine))
    wrong += [
        f"{app.name} (pid {app.pid}) runs too, and machine.yaml names it no more"
        for app in found.strangers
    ]
    if behind := last_good.refusal(machine):
        wrong.append(f"behind machine.yaml: {behind}")
    return wrong


def said_of(row: Row) -> str:
    """The state of an instance in one sentence."""
    return f"{row.instance} is {row.health}" + (f": {row.reason}" if row.reason else "")


def why_none(machine: Machine) -> str:
    if not machine.enabled:
        return "no instances: ENABLE_COMFYUI is false"
    return "no instances: instances.gpus is auto, and there is no GPU here"
