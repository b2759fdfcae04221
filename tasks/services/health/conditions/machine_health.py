"""The health of the machine as a whole, and of its parts that are no instance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ....host.comfyui.condition import Condition, Health, Reason, healthy
from ....host.comfyui.judge import RUN
from ....host.downloads import model_files
from ..model.answers import InstanceHealth
from ..model.facts import SILENT, Facts

WAIT = "wait: a doit run is in progress"
WORST: Sequence[Health] = (
    "crash loop", "down", "unhealthy", "unknown", "installing", "starting", "draining", "degraded",
)  # fmt: skip
"""The machine is as the first of these that an instance is."""
UNFINISHED: Mapping[str, tuple[Health, Reason, str]] = {
    "failed": ("failed", "RunFailed", "correct what failed, then run doit"),
    "interrupted": (
        "interrupted", "RunInterrupted", "run doit: it continues where it was",
    ),
}  # fmt: skip
"""By the state of the last run, where it didn't succeed: health, code and advice."""


def overall(
    facts: Facts, every: Sequence[InstanceHealth], installation: Condition, models: Condition
) -> Condition:
    """The machine: as well as the worst of its instances. While they serve it is no worse than
    degraded, whatever became of the run that was to change it."""
    if not facts.settings.enabled:
        return Condition("Ready", "disabled", "Disabled", "ENABLE_COMFYUI is false",
                         "unset ENABLE_COMFYUI and run doit to have instances")  # fmt: skip
    if not installation.is_healthy and facts.installed.generation is None:
        return installation
    if not every:
        why = "no instances: instances.gpus is auto, and there is no GPU here"
        advice = "see that the machine has its GPUs, then run doit"
        return Condition("Ready", "unhealthy", "NoInstances", why, advice)
    worst = together(every, healthy())
    if not worst.is_healthy:
        pending = worst.health in ("down", "starting") and not installation.is_healthy
        return installation if pending else _explained(worst, facts)
    if not models.is_healthy:
        return models
    if not installation.is_healthy:
        return replace(installation, health="degraded")
    workers = [worker for each in every for worker in each.workers if not worker.running]
    if workers:
        why = f"{workers[0].name} doesn't run: {workers[0].reason}"
        return Condition("Ready", "degraded", "WorkerDown", why, RUN)
    return next((x for x in (installation, models, worst) if x.health == "degraded"), worst)


def _explained(worst: Condition, facts: Facts) -> Condition:
    """With the last run, where that didn't come as far as to start what doesn't run."""
    last = _unfinished(facts)
    if worst.health != "down" or last is None:
        return worst
    return replace(worst, message=f"{last.message}; {worst.message}", advice=last.advice)


def _unfinished(facts: Facts) -> Condition | None:
    """What the last run left undone; None when it succeeded, or is in progress."""
    run = facts.run
    if run is None or run.state not in UNFINISHED:
        return None
    health, reason, advice = UNFINISHED[run.state]
    failed = next((task for task in run.tasks if task.state == "failed"), None)
    at = ", ".join(task.name for task in run.tasks if task.state == "running")
    if run.state == "failed":
        why = "the last run failed" + (f": {failed.name}: {failed.reason}" if failed else "")
    else:
        why = "the last run was ended before it was done" + (f", at {at}" if at else "")
    return Condition("Ready", health, reason, why, advice)


def together(instances: Sequence[InstanceHealth], none: Condition) -> Condition:
    """The instances alone: as well as the worst of them; `none` when there are none."""
    for status in WORST:
        sick = [each for each in instances if each.status == status]
        if sick:
            more = f" (and {len(sick) - 1} more)" if len(sick) > 1 else ""
            why = f"{sick[0].name} is {status}: {sick[0].reason}{more}"
            return Condition("Ready", status, sick[0].code, why, sick[0].advice)
    return healthy() if instances else none


def installation(facts: Facts) -> Condition:
    """What is installed, and what became of the run that installs."""
    layer, last = facts.installed.layer, _unfinished(facts)
    if facts.behind and facts.installed.generation:
        why = f"behind machine.yaml: {facts.behind}"
        advice = "correct machine.yaml and run doit, or doit force=1"
        return Condition("Ready", "degraded", "BehindMachineFile", why, advice)
    if not layer.ok:
        if facts.run and facts.installs:
            now = ", ".join(task.name for task in facts.run.tasks if task.state == "running")
            return Condition("Ready", "installing", "Installing", now or "it begins", WAIT)
        return last or Condition("Ready", "unhealthy", "NotInstalled", layer.reason, RUN)
    if last:
        return replace(last, health="degraded")
    if facts.installed.degraded:
        why = facts.installed.degraded[0]
        return Condition("Ready", "degraded", "OptionalPartMissing", why, RUN)
    return healthy()


def models(facts: Facts, listed: Mapping[str, Sequence[str]] | None = None) -> Condition:
    """The declared models, also as an instance lists them; healthy when none is declared."""
    if facts.models is None:
        advice = "see that the volumes of the models answer"
        return Condition("ModelsPresent", "unknown", "ModelsUnknown", SILENT, advice)
    found = model_files.summarize(facts.models, listed)
    if not found.ok:
        health: Health = "installing" if facts.installs else "unhealthy"
        advice = WAIT if facts.installs else RUN
        return Condition("ModelsPresent", health, "ModelMissing", found.reason, advice)
    for target, why in found.wrong.items():
        return Condition("Complete", "degraded", "OptionalModelMissing",
                         f"{target} (optional): {why}", RUN)  # fmt: skip
    return healthy("ModelsPresent")
