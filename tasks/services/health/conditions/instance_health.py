"""The health of one instance, as the health server answers it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import get_args

from ....host.comfyui import condition, judge
from ....host.comfyui.condition import Condition, InstanceType
from ....host.comfyui.judge import Observation, Rules
from ....host.comfyui.machine_condition import SILENT
from ....host.comfyui.own_jobs import Trial
from ....host.comfyui.workflow_state import WorkflowState
from ....host.downloads import model_files
from ..model import answers
from ..model.answers import (
    Functional,
    InstanceHealth,
    Layers,
    Listed,
    Running,
    Service,
    Workflow,
)
from ..model.facts import Facts, Sample
from ..model.settings import Instance


def assess(instance: Instance, sample: Sample, facts: Facts, now: float) -> InstanceHealth:
    """The health of one instance, without any `since`. `now` is by the monotonic clock."""
    age, rules = now - sample.at, _rules(sample, facts)
    observation = replace(
        sample.observation,
        age=age,
        awaited=facts.awaits("instances:start"),
        unlisted=model_files.unlisted(facts.models or {}, sample.listed),
    )
    found = judge.judge(observation, rules)
    app = observation.state.app
    ready = condition.ready(found, app.fingerprint if app else "")
    return InstanceHealth(
        **answers.verdict(ready, 0.0),
        age=round(age, 2),
        name=instance.name,
        gpu=instance.gpu,
        port=app.port if app and app.port else instance.port,
        layers=Layers(
            installed=facts.installed.layer,
            running=_running(sample, found),
            functional=_functional(sample, observation, rules, found),
            models=_models(sample, facts),
        ),
        conditions=[answers.instance_condition(each) for each in _each_type(ready, found)],
        workflows=[*map(_workflow, observation.workflows)],
        card=facts.cards.get(instance.gpu),
        workers=[
            service(worker.name, facts, ready, instance.name)
            for worker in facts.settings.workers
            if worker.gpu == instance.gpu
        ],
        history=list(sample.history),
    )


def _workflow(state: WorkflowState) -> Workflow:
    return Workflow(
        name=state.name,
        ok=state.ok,
        optional=state.optional,
        reason=state.reason,
        missing_classes=dict(state.classes),
        missing_models={model.name: model.node for model in state.models},
    )


def _rules(sample: Sample, facts: Facts) -> Rules:
    """By what it was started with. What machine.yaml asks for since, it need not have."""
    settings, build = facts.settings, sample.build
    declared = {node.name for node in settings.nodes}
    return Rules(
        start_timeout=settings.start_timeout,
        restarts=settings.restarts,
        required={node.name for node in settings.nodes if not node.optional} - build.failed,
        ignored=set() if build.selected is None else declared - build.selected,
        classes={name: each for name, each in build.classes.items() if name in declared},
        lists_classes=not sample.passed and facts.run is not None and facts.run.is_on,
    )


def _each_type(ready: Condition, found: Sequence[Condition]) -> list[Condition]:
    """One condition of each type: the worst, or a healthy one."""
    worst: dict[condition.Type, Condition] = {each.type: each for each in reversed(found)}
    worst["Ready"] = ready
    return [
        worst.get(kind) or condition.healthy(kind, ready.observed)
        for kind in get_args(InstanceType)
    ]


def _message_of(kind: InstanceType, found: Sequence[Condition]) -> str:
    return next((each.message for each in found if each.type == kind), "")


def _running(sample: Sample, found: Sequence[Condition]) -> Running:
    state, why = sample.observation.state, _message_of("Running", found)
    return Running(
        ok=not why,
        reason=why,
        pid=state.app.pid if state.app else None,
        uptime=state.uptime,
        restarts=state.restarts,
        memory=state.memory,
        before=sample.before,
    )


def _functional(
    sample: Sample, observation: Observation, rules: Rules, found: Sequence[Condition]
) -> Functional:
    why = _message_of("Functional", found)
    return Functional(
        ok=not why,
        reason=why,
        queue=observation.answer.queue if observation.state.app else None,
        job=sample.job,
        missing_nodes=judge.missing_classes(observation, rules),
        failed_nodes=judge.failed_nodes(observation, rules),
        warmup=_trial(observation.warmup),
        canary=_trial(observation.canary),
    )


def _trial(done: Trial | None) -> answers.Trial | None:
    return answers.Trial(**asdict(done)) if done else None


def _models(sample: Sample, facts: Facts) -> Listed:
    if facts.models is None:
        return Listed(ok=False, reason=SILENT)
    found = model_files.summarize(facts.models, sample.listed)
    return Listed(ok=found.ok, reason=found.reason, wrong=found.wrong)


def service(name: str, facts: Facts, ready: Condition, instance: str) -> Service:
    """A worker: whether it runs and what it waits for."""
    state = facts.workers.get(name)
    problem = judge.process_fault(state, name) if state else None
    if state is not None and state.app is not None:
        why = problem.message if problem else ""
        return Service(name=name, running=True, pid=state.app.pid, reason=why)
    if not ready.is_healthy:
        return Service(
            name=name, running=False, waits_for=[instance], reason=ready.told_of(instance)
        )
    if facts.awaits(f"workers:{name}"):
        return Service(name=name, running=False, waits_for=["doit"], reason="the run starts it")
    return Service(name=name, running=False, reason=problem.message if problem else "not started")
