"""The health of the machine as a whole, and of its parts that are no instance. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ....host.downloads import model_files
from ..model.answers import HEALTHY, InstanceHealth, Status
from ..model.facts import ADVICE, RUN, SILENT, Facts, Judged, known, lacking

WORST: Sequence[Status] = (
    "crash loop", "down", "unhealthy", "installing", "starting", "draining", "degraded",
)  # fmt: skip
"""The machine is as the first of these that an instance is."""


def overall(
    facts: Facts, every: Sequence[InstanceHealth], installation: Judged, models: Judged
) -> Judged:
    """The machine: as well as the worst of its instances. While they serve it is no worse than
    degraded, whatever became of the run that was to change it."""
    if not facts.settings.enabled:
        return Judged("disabled", "ENABLE_COMFYUI is false", ADVICE["disabled"])
    installed = installation.status in HEALTHY
    if not installed and facts.installed.generation is None:
        return installation
    if not every:
        why = "no instances: instances.gpus is auto, and there is no GPU here"
        return Judged("unhealthy", why, "see that the machine has its GPUs, then run doit")
    worst = together(every, Judged("healthy"))
    if worst.status not in HEALTHY:
        comes = worst.status in ("down", "starting") and not installed
        return installation if comes else _explained(worst, facts)
    if models.status not in HEALTHY:
        return lacking(facts, models.reason)
    if not installed:
        return Judged("degraded", installation.reason, installation.advice)
    workers = [worker for each in every for worker in each.workers if not worker.running]
    if workers:
        return Judged("degraded", f"{workers[0].name} doesn't run: {workers[0].reason}", RUN)
    return next((x for x in (installation, models, worst) if x.status == "degraded"), worst)


def _explained(worst: Judged, facts: Facts) -> Judged:
    """What doesn't run since the last run didn't come so far."""
    why = _left(facts) if worst.status == "down" else ""
    if not why or facts.run is None:
        return worst
    return Judged(worst.status, f"{why}; {worst.reason}", ADVICE[facts.run.state])


def _left(facts: Facts) -> str:
    """What the last run left undone, and why; empty when it succeeded, or is on."""
    run = facts.run
    if run and run.state == "failed":
        failed = next((task for task in run.tasks if task.state == "failed"), None)
        return "the last run failed" + (f": {failed.name}: {failed.reason}" if failed else "")
    if run and run.state == "interrupted":
        at = ", ".join(task.name for task in run.tasks if task.state == "running")
        return f"the last run was ended before it was done{f', at {at}' if at else ''}"
    return ""


def together(instances: Sequence[InstanceHealth], none: Judged) -> Judged:
    """The instances alone: as well as the worst of them; `none` when there are none."""
    for status in WORST:
        sick = [each for each in instances if each.status == status]
        if sick:
            more = f" (and {len(sick) - 1} more)" if len(sick) > 1 else ""
            why = f"{sick[0].name} is {status}: {sick[0].reason}{more}"
            return Judged(status, why, sick[0].advice)
    return Judged("healthy") if instances else none


def installation(facts: Facts) -> Judged:
    """What is installed, and what became of the run that installs."""
    layer, run, why = facts.installed.layer, facts.run, _left(facts)
    if facts.behind and facts.installed.generation:
        why = f"behind machine.yaml: {facts.behind}"
        return Judged("degraded", why, "correct machine.yaml and run doit, or doit force=1")
    if not layer.ok:
        if run and run.state == "running":
            now = ", ".join(task.name for task in run.tasks if task.state == "running")
            return Judged("installing", now or "it begins", ADVICE["installing"])
        if why and run:
            return Judged(known(run.state), why, ADVICE[run.state])
        return Judged("unhealthy", layer.reason, RUN)
    if why and run:
        return Judged("degraded", why, ADVICE[run.state])
    if facts.installed.degraded:
        return Judged("degraded", facts.installed.degraded[0], RUN)
    return Judged("healthy")


def models(facts: Facts) -> Judged:
    """The declared models; none is healthy."""
    if facts.models is None:
        return Judged("unknown", SILENT, "see that the volumes of the models answer")
    found = model_files.verdict(facts.models)
    if not found.ok:
        return Judged("unhealthy", found.reason, RUN)
    if found.degraded:
        return Judged("degraded", f"optional: {found.degraded[0]}", RUN)
    return Judged("healthy")
