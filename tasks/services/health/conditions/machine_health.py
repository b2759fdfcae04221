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
WORST_FIRST: Sequence[Health] = (
    "crash loop", "down", "unhealthy", "unknown", "installing", "starting", "draining", "degraded",
)  # fmt: skip
"""The machine has the first of these that an instance has."""
UNCORDON = "see to the GPU, then run doit uncordon and doit"
UNFINISHED: Mapping[str, tuple[Health, Reason, str]] = {
    "failed": ("failed", "RunFailed", "correct the error, then run doit"),
    "interrupted": (
        "interrupted", "RunInterrupted", "run doit: it continues where it was",
    ),
}  # fmt: skip
"""State of a last run that didn't succeed → health, reason and advice."""


def overall(
    facts: Facts, every: Sequence[InstanceHealth], installation: Condition, models: Condition
) -> Condition:
    """The machine has the worst health of its instances. While they serve, it is at worst degraded,
    even if the last run failed."""
    if not facts.settings.enabled:
        return Condition("Ready", "disabled", "Disabled", "ENABLE_COMFYUI is false",
                         "unset ENABLE_COMFYUI and run doit to have instances")  # fmt: skip
    if not installation.is_healthy and facts.installed.generation is None:
        return installation
    cordoned = list(facts.settings.cordoned.values())
    if not every and cordoned:
        return Condition("Ready", "unhealthy", "NoInstances", cordoned[0], UNCORDON)
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
    if cordoned:
        return Condition("Ready", "degraded", "GpuCordoned", cordoned[0], UNCORDON)
    if facts.watcher and not facts.installs:
        why = f"{facts.watcher}, so nothing restarts what hangs"
        return Condition("Ready", "degraded", "WatcherDown", why, RUN)
    return next((x for x in (installation, models, worst) if x.health == "degraded"), worst)


def _explained(worst: Condition, facts: Facts) -> Condition:
    """The condition, and the last run's failure if that left the instance down."""
    last = _unfinished(facts)
    if worst.health != "down" or last is None:
        return worst
    return replace(worst, message=f"{last.message}; {worst.message}", advice=last.advice)


def _unfinished(facts: Facts) -> Condition | None:
    """Why the last run isn't finished; None when it succeeded or is in progress."""
    run = facts.run
    if run is None or run.state not in UNFINISHED:
        return None
    health, reason, advice = UNFINISHED[run.state]
    failed = next((task for task in run.tasks if task.state == "failed"), None)
    at = ", ".join(task.name for task in run.tasks if task.state == "running")
    if run.state == "failed":
        why = "the last run failed" + (f": {failed.name}: {failed.reason}" if failed else "")
    else:
        why = "the last run was interrupted" + (f", at {at}" if at else "")
    return Condition("Ready", health, reason, why, advice)


def together(instances: Sequence[InstanceHealth], without: Condition) -> Condition:
    """The worst condition of the instances; `without` when there are none."""
    for status in WORST_FIRST:
        found = [each for each in instances if each.status == status]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            why = f"{found[0].name} is {status}: {found[0].reason}{more}"
            return Condition("Ready", status, found[0].code, why, found[0].advice)
    return healthy() if instances else without


def installation(facts: Facts) -> Condition:
    """What is installed, and the result of the run that installs."""
    layer, last = facts.installed.layer, _unfinished(facts)
    if facts.behind and facts.installed.generation:
        why = f"behind machine.yaml: {facts.behind}"
        advice = "correct machine.yaml and run doit, or doit force=1"
        return Condition("Ready", "degraded", "BehindMachineFile", why, advice)
    if not layer.ok:
        if facts.run and facts.installs:
            now = ", ".join(task.name for task in facts.run.tasks if task.state == "running")
            return Condition(
                "Ready", "installing", "Installing", now or "the run is starting", WAIT
            )
        return last or Condition("Ready", "unhealthy", "NotInstalled", layer.reason, RUN)
    if last:
        return replace(last, health="degraded")
    if facts.installed.degraded:
        why = facts.installed.degraded[0]
        return Condition("Ready", "degraded", "OptionalPartMissing", why, RUN)
    return healthy()


def models(facts: Facts, listed: Mapping[str, Sequence[str]] | None = None) -> Condition:
    """The declared models, and whether an instance lists them; healthy when none is declared."""
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
