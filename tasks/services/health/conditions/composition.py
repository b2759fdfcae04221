"""Composes all answers from the observations. Reads only the logs of unhealthy instances."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from ....host.comfyui import machine_condition
from ....host.comfyui.condition import HEALTHY, Condition
from ....host.comfyui.job_apps import JobApp
from ....host.comfyui.machine_condition import MachineObservation
from ....host.downloads import model_files
from ....host.pm2 import log_evidence
from ....host.system.run_journal import Journal
from ..model import answers
from ..model.answers import (
    Installation,
    InstanceHealth,
    InstancesHealth,
    Model,
    ModelsHealth,
    Overview,
    Run,
    Service,
    Verdict,
)
from ..model.facts import Facts, Sample
from . import instance_health, machine_health
from .answer_board import Answer, Answers, Since

LINES = 12
"""Lines that are shown of the log of an unhealthy instance."""


def compose(
    facts: Facts,
    samples: Mapping[int, Sample],
    since: Since,
    mask: Callable[[bytes], bytes],
) -> Answers:
    """The answers; `samples` are by GPU."""
    now = time.monotonic()
    oldest = min((sample.at for sample in samples.values()), default=now)
    judged = {
        each.gpu: _instance(
            instance_health.assess(each, samples[each.gpu], facts, now), facts, since
        )
        for each in facts.settings.instances
    }
    observation = machine_health.observation(facts, list(judged.values()))
    machine = machine_condition.ready(observation)
    every = machine_condition.of_instances(observation.instances, machine)
    answered = {gpu: Answer(each, mask, samples[gpu].at) for gpu, each in judged.items()}
    return Answers(
        overview=Answer(_overview(facts, judged, observation, machine, since), mask, oldest),
        installation=Answer(
            _installation(facts, machine_condition.installation(observation), since), mask
        ),
        instances=Answer(
            InstancesHealth(
                **_verdict("instances", every, since),
                age=0,
                instances={str(gpu): each for gpu, each in judged.items()},
            ),
            mask, oldest,
        ),
        models=Answer(
            _models(facts, machine_condition.models(observation), samples, since), mask, now
        ),
        by_gpu=answered,
        ready=Answer(
            Verdict(**_verdict("ready", machine_condition.available(observation), since)), mask
        ),
        at=now,
        seen=min(oldest, facts.at),
    )  # fmt: skip


def _verdict(what: str, condition: Condition, since: Since) -> dict[str, Any]:
    return answers.verdict(condition, since.of(what, condition.health))


def _instance(verdict: InstanceHealth, facts: Facts, since: Since) -> InstanceHealth:
    pid = verdict.layers.running.pid
    verdict.since = since.of(verdict.name, f"{verdict.status} {pid}")
    for each in verdict.conditions:
        each.since = since.of(f"{verdict.name} {each.type}", f"{each.reason} {pid}")
    if verdict.status not in HEALTHY:
        log = facts.settings.layout.log(verdict.name)
        verdict.log = log_evidence.last_lines(log, LINES)
    return verdict


def _overview(
    facts: Facts,
    judged: Mapping[int, InstanceHealth],
    observation: MachineObservation,
    machine: Condition,
    since: Since,
) -> Overview:
    every, found = list(judged.values()), machine_condition.judge(observation)
    began = since.of_all("machine", [f"{each.type} {each.reason}" for each in found])
    run = _run(replace(facts.run, tasks=())) if facts.run and facts.run.is_on else None
    return Overview(
        **_verdict("machine", machine, since),
        age=0,
        conditions=[
            answers.machine_condition(replace(each, since=at))
            for each, at in zip(found, began, strict=True)
        ],
        layers={
            "installed": facts.installed.layer.ok,
            "running": all(each.layers.running.ok for each in every),
            "functional": all(each.layers.functional.ok for each in every),
            "models": all(each.layers.models.ok for each in every)
            and machine_condition.models(observation).reason == "Healthy",
        },
        instances={
            str(each.gpu): Verdict(**{key: getattr(each, key) for key in Verdict.model_fields})
            for each in every
        },
        services=[
            *(service for each in every for service in (_service(each), *each.workers)),
            *map(_job_service, facts.jobs),
        ],
        run=run,
        jobs=facts.queue,
    )


def _run(journal: Journal) -> Run:
    return Run.model_validate(journal, from_attributes=True)


def _service(instance: InstanceHealth) -> Service:
    """An instance as a service; it waits for the run that installs it."""
    waits = [] if instance.status in HEALTHY or instance.layers.installed.ok else ["installation"]
    return Service(
        name=instance.name,
        running=instance.layers.running.ok,
        pid=instance.layers.running.pid,
        waits_for=waits,
        reason=instance.reason,
    )


def _job_service(found: JobApp) -> Service:
    app = found.state.app
    return Service(
        name=found.name, running=app is not None, pid=app.pid if app else None, reason=found.fault
    )


def _installation(facts: Facts, judged: Condition, since: Since) -> Installation:
    found = facts.installed
    return Installation(
        **_verdict("installation", judged, since),
        installed=found.layer,
        generation=found.generation,
        comfyui=found.comfyui,
        nodes=list(found.nodes),
        packages=found.packages,
        run=_run(facts.run) if facts.run else None,
    )


def _models(
    facts: Facts, judged: Condition, samples: Mapping[int, Sample], since: Since
) -> ModelsHealth:
    return ModelsHealth(
        **_verdict("models", judged, since),
        age=0,
        models=[
            Model(
                **asdict(state),
                listed={
                    str(gpu): model_files.listed(sample.listed, state.target)
                    for gpu, sample in samples.items()
                },
            )
            for state in (facts.models or {}).values()
        ],
    )
