"""What `machine_condition` judges: the observed machine, and the health of each instance."""

from __future__ import annotations

from collections.abc import Sequence

from ....host.comfyui.condition import Condition
from ....host.comfyui.machine_condition import Installation, MachineObservation
from ....host.downloads import model_files
from ..model.answers import InstanceHealth
from ..model.facts import Facts


def observation(facts: Facts, every: Sequence[InstanceHealth]) -> MachineObservation:
    """What the machine is judged by. Pure."""
    installed = facts.installed
    workers = [worker for each in every for worker in each.workers]
    return MachineObservation(
        enabled=facts.settings.enabled,
        instances={
            each.name: Condition("Ready", each.status, each.code, each.reason, each.advice)
            for each in every
        },
        installation=Installation(installed.generation, installed.layer.reason, installed.degraded),
        missing=None if facts.models is None else model_files.summarize(facts.models).wrong,
        optional=model_files.optional(facts.models or {}),
        idle_workers={each.name: each.reason for each in workers if not each.running},
        faulty_workers={each.name: each.reason for each in workers if each.running and each.reason},
        faulty_jobs={each.name: each.fault for each in facts.jobs if each.fault},
        run=facts.run,
        behind=facts.behind,
        full=facts.full,
        cordoned=list(facts.settings.cordoned.values()),
        watcher=facts.watcher,
        observed=facts.observed,
    )
