"""The health of one instance, from what was seen. Pure: the same facts give the same verdict."""

from __future__ import annotations

from ....host.comfyui import machine_state, node_classes
from ....host.downloads import model_files
from ..model.answers import Functional, InstanceHealth, Layers, Listed, Running, Service
from ..model.facts import ADVICE, RUN, SILENT, Facts, Judged, known, lacking
from ..model.sample import Sample
from ..model.settings import Instance

WARMUP = "correct health.warmup, or what it needs, then run doit"
STALE = 120.0
"""Seconds; one that answers nothing in time to any question is looked at once in a minute."""


def judge(instance: Instance, sample: Sample, facts: Facts, now: float) -> InstanceHealth:
    """One instance; `since` is left for whoever saw it before. `now` is of the monotonic clock."""
    layers = Layers(
        installed=facts.installed.layer,
        running=_running(sample),
        functional=_functional(instance, sample, facts),
        models=_models(sample, facts),
    )
    judged = _status(instance, sample, layers, facts, now)
    app = sample.seen.app
    return InstanceHealth(
        status=judged.status,
        since=0,
        reason=judged.reason,
        advice=judged.advice,
        age=round(now - sample.at, 2),
        name=instance.name,
        gpu=instance.gpu,
        port=app.port if app and app.port else instance.port,
        layers=layers,
        card=facts.cards.get(instance.gpu),
        workers=[
            service(worker.name, facts, judged, instance.name)
            for worker in facts.settings.workers
            if worker.gpu == instance.gpu
        ],
        history=list(sample.history),
    )


def _status(instance: Instance, sample: Sample, layers: Layers, facts: Facts, now: float) -> Judged:
    seen = sample.seen
    if (age := now - sample.at) > STALE:
        why = f"it was last looked at {age:.0f} s ago"
        return Judged("unknown", why, "see the log of health-server")
    status, reason = machine_state.judge(
        seen, sample.health, facts.settings.start_timeout, sample.watched or sample.trouble
    )
    name = instance.name
    if seen.app is None:
        if facts.awaits("instances:start") and status != "crash loop":
            return Judged("starting", "the run that is on starts it", ADVICE["starting"])
        return Judged(known(status), reason, ADVICE[status])
    if status == "crash loop":
        return Judged("crash loop", reason, f"doit logs {name}; mend the cause, then run doit")
    if sample.trouble:
        advice = f"doit restart {name}"
        if facts.settings.restarts:
            advice = f"the watcher restarts it when that lasts; at once: {advice}"
        return Judged("unhealthy", sample.trouble, advice)
    if status == "unhealthy":
        return Judged("unhealthy", reason, f"doit restart {name}; doit logs {name}")
    if status != "healthy":
        return Judged(known(status), reason, ADVICE[status])
    if sample.cold:
        status, why = sample.cold
        advice = ADVICE["starting"] if status == "starting" else WARMUP
        return Judged(known(status), why, advice)
    if sample.classes is None and not facts.installed.layer.ok:
        return Judged("starting", "it has not said which nodes it has", ADVICE["starting"])
    if not layers.functional.ok:
        return Judged("unhealthy", layers.functional.reason, _advice(name, layers))
    if not layers.models.ok:
        return lacking(facts, layers.models.reason)
    if sample.draining:
        return Judged("draining", "it takes no new jobs", ADVICE["draining"])
    if not layers.running.ok:
        return Judged("degraded", layers.running.reason, RUN)
    if optional := _optional(layers):
        return Judged("degraded", optional, f"doit logs {name}; mend it, or leave it out")
    return Judged("healthy")


def _advice(name: str, layers: Layers) -> str:
    """What to do about what isn't functional."""
    functional = layers.functional
    if (
        functional.canary
        and not functional.canary.ok
        and functional.reason == (functional.canary.reason)
    ):
        return f"doit logs {name}; mend its nodes, its models or the workflow (health.canary)"
    if functional.failed_nodes or functional.missing_nodes:
        return f"doit logs {name}; another ref, python.overrides, or optional: true, then doit"
    return f"doit logs {name}; doit restart {name}"


def _optional(layers: Layers) -> str:
    """What is missing of the optional, which is never a reason to be unhealthy."""
    for name, why in layers.functional.failed_nodes.items():
        return f"custom node {name} (optional) {why}"
    for target, why in layers.models.wrong.items():
        return f"{target} (optional): {why}"
    return ""


def _running(sample: Sample) -> Running:
    seen = sample.seen
    if seen.app is None:
        why = machine_state.why(seen)
        return Running(ok=False, reason=why, restarts=seen.restarts, before=sample.before)
    orphan = machine_state.orphan(seen)
    return Running(
        ok=not orphan,
        reason=orphan,
        pid=seen.app.pid,
        uptime=seen.uptime,
        restarts=seen.restarts,
        memory=seen.memory,
        before=sample.before,
    )


def _functional(instance: Instance, sample: Sample, facts: Facts) -> Functional:
    missing, failed = _nodes(sample, facts)
    required = {node.name for node in facts.settings.nodes if not node.optional}
    reason = sample.trouble or sample.watched
    if sample.seen.app is None:
        reason = f"{instance.name} doesn't run"
    elif not sample.health.healthy and not reason:
        reason = sample.health.reason
    elif not reason and (away := sorted(required & set(failed))):
        reason = f"custom node {away[0]} {failed[away[0]]}"
    elif not reason and (away := sorted(required & set(missing))):
        reason = f"custom node {away[0]} lacks {', '.join(missing[away[0]][:3])}"
    elif not reason and sample.cold:
        reason = sample.cold[1]
    elif not reason and sample.canary and not sample.canary.ok:
        reason = sample.canary.reason
    return Functional(
        ok=not reason,
        reason=reason,
        queue=sample.health.queue if sample.seen.app else None,
        job=sample.job,
        missing_nodes=missing,
        failed_nodes=failed,
        warmup=sample.warmup,
        canary=sample.canary,
    )


def _nodes(sample: Sample, facts: Facts) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Classes that are missing, and the nodes that failed, without those not to be loaded."""
    if sample.classes is None:
        return {}, {}
    settings = facts.settings
    declared = {node.name for node in settings.nodes}
    chosen = declared if settings.selected is None else declared & set(settings.selected)
    failed = {
        name: why
        for name, why in sample.failed_nodes.items()
        if name in chosen or name not in declared
    }
    expected = {
        name: classes
        for name, classes in facts.installed.classes.items()
        if name in chosen and name not in failed
    }
    return node_classes.missing(expected, sample.classes), failed


def _models(sample: Sample, facts: Facts) -> Listed:
    if facts.models is None:
        return Listed(ok=False, reason=SILENT)
    found = model_files.verdict(facts.models, sample.listed)
    return Listed(ok=found.ok, reason=found.reason, wrong=found.wrong)


def service(name: str, facts: Facts, of: Judged, instance: str) -> Service:
    """A worker: whether it runs, and what it waits for."""
    seen = facts.workers.get(name)
    if seen is not None and seen.app is not None:
        return Service(name=name, running=True, pid=seen.app.pid, reason=machine_state.orphan(seen))
    if of.status not in ("healthy", "degraded"):
        why = f"{instance} is {of.status}" + (f": {of.reason}" if of.reason else "")
        return Service(name=name, running=False, waits_for=[instance], reason=why)
    if facts.awaits(f"workers:{name}"):
        return Service(name=name, running=False, waits_for=["doit"], reason="the run starts it")
    return Service(
        name=name, running=False, reason=machine_state.why(seen) if seen else "not started"
    )
