"""The conditions of the machine: what serves, what a run still brings, what isn't as wanted.

What was applied and what is wanted are two things. An instance is judged by what it was started
with (`judge`), and the machine is available as long as one serves. What machine.yaml and its lock
ask for beyond that is progressing while a run brings it, and degraded when it failed to come. Pure;
the health server and the commands use it, so their answers agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..system import files
from ..system.program_files import PROGRAM
from ..system.run_journal import Journal
from . import job_apps
from .condition import Condition, Health, MachineType, Reason, healthy
from .judge import RUN

WAIT = f"wait: a {PROGRAM} run is in progress"
UNCORDON = f"see to the GPU, then run {PROGRAM} uncordon and {PROGRAM}"
MODEL_TASKS = ("models", "links:prune", "links:files")
"""The tasks that bring models."""
WORST_FIRST: Sequence[Health] = (
    "crash loop", "down", "unhealthy", "unknown", "installing", "starting", "draining", "degraded",
)  # fmt: skip
"""Of several instances, the first of these is told."""
PASSING: Sequence[Health] = ("installing", "starting", "draining")
"""What passes by itself."""
NOTHING_YET: Mapping[Reason, Health] = {
    "Installing": "installing", "RunFailed": "failed", "RunInterrupted": "interrupted",
    "NotInstalled": "unhealthy",
}  # fmt: skip
"""The health of a machine without any generation, by why it has none."""
SILENT = "the disk has not answered yet"


@dataclass(frozen=True)
class Installation:
    """What is installed, compared with what machine.yaml and the lock ask for."""

    generation: str | None
    problem: str = ""
    """Why it isn't what they ask for; empty when it is."""
    lesser: Sequence[str] = ()
    """What is wrong with optional parts."""


@dataclass(frozen=True)
class MachineObservation:
    """A machine at one moment."""

    enabled: bool
    instances: Mapping[str, Condition]
    """Name → its condition Ready."""
    installation: Installation
    missing: Mapping[str, str] | None = field(default_factory=dict)
    """Model that isn't as wanted → why; None: the disk has not answered yet."""
    optional: frozenset[str] = frozenset()
    """The optional ones among them."""
    idle_workers: Mapping[str, str] = field(default_factory=dict)
    """Worker that doesn't run → why."""
    faulty_workers: Mapping[str, str] = field(default_factory=dict)
    """Worker that runs and isn't well → why."""
    faulty_jobs: Mapping[str, str] = field(default_factory=dict)
    """Program of jobs that doesn't run, or isn't well → what is wrong with it."""
    run: Journal | None = None
    behind: str = ""
    """Why the machine stays on the last good generation."""
    cordoned: Sequence[str] = ()
    """Why GPUs are out of service."""
    watcher: str | None = None
    """What is wrong with the watcher; None: nothing."""
    full: Sequence[str] = ()
    """Disks without space left."""
    observed: str = ""
    """The digest of the machine.yaml and lock that it is compared with."""

    @property
    def serves(self) -> bool:
        return any(each.is_healthy for each in self.instances.values())

    def awaits(self, *names: str) -> bool:
        """Whether the run in progress still has one of these tasks to do."""
        return self.run is not None and self.run.awaits(*names)


def digest(declared: str, lock: str | None) -> str:
    """The digest of what is wanted: of the health server's settings, and of the lock file."""
    return files.digest([declared, lock])


def judge(observation: MachineObservation) -> list[Condition]:
    """Available, then what is Progressing, then what is Degraded: at least one of each.

    Several of a type have different reasons, and come with the worst first.
    """
    found = [available(observation), *_unlike_wanted(observation)]
    kinds: tuple[MachineType, ...] = ("Available", "Progressing", "Degraded")
    every = {kind: [each for each in found if each.type == kind] for kind in kinds}
    return [
        replace(each, observed=observation.observed)
        for kind, these in every.items()
        for each in these or [healthy(kind)]
    ]


def ready(observation: MachineObservation) -> Condition:
    """Sums up: while an instance serves, what isn't as wanted; else why none does."""
    return replace(_ready(observation), type="Ready", observed=observation.observed)


def available(observation: MachineObservation) -> Condition:
    """Whether an instance takes jobs, and no more: clients without a token get this."""
    if observation.serves:
        return healthy("Available")
    advice = "see /health/comfyui"
    return Condition("Available", "unhealthy", "NoneReady", "no instance takes jobs", advice)


def of_instances(instances: Mapping[str, Condition], without: Condition) -> Condition:
    """What is wrong with the instances: at most degraded while one serves.

    `without` is the answer where there is none.
    """
    worst = _worst(instances)
    if worst is None:
        return healthy() if instances else without
    serves = any(each.is_healthy for each in instances.values())
    return replace(worst, health="degraded") if serves else worst


def installation(observation: MachineObservation) -> Condition:
    """What is installed, and the result of the run that installs."""
    found = next(_installation(observation), healthy())
    if observation.installation.generation or found.reason == "Healthy":
        return found
    return replace(found, type="Ready", health=NOTHING_YET[found.reason])


def models(observation: MachineObservation) -> Condition:
    """The declared models: all there, still brought by the run in progress, or missing."""
    return next(_models(observation), healthy("Degraded"))


def _ready(observation: MachineObservation) -> Condition:
    if not observation.enabled:
        return Condition("Ready", "disabled", "Disabled", "ENABLE_COMFYUI is false",
                         f"unset ENABLE_COMFYUI and run {PROGRAM} to have instances")  # fmt: skip
    if observation.serves:
        found = list(_unlike_wanted(observation))
        degraded = (each for each in found if each.type == "Degraded")
        return next(degraded, found[0] if found else healthy())
    installed = installation(observation)
    if observation.installation.generation is None and installed.reason != "Healthy":
        return installed
    worst = _worst(observation.instances)
    if worst is None and observation.cordoned:
        return Condition("Ready", "unhealthy", "NoInstances", observation.cordoned[0], UNCORDON)
    if worst is None:
        why = "no instances: instances.gpus is auto, and there is no GPU here"
        advice = f"see that the machine has its GPUs, then run {PROGRAM}"
        return Condition("Ready", "unhealthy", "NoInstances", why, advice)
    if installed.reason == "Installing" and worst.health in (*PASSING, "down"):
        return replace(installed, health="installing")
    if worst.health in (*PASSING, "unknown"):
        return worst
    last = _last_run(observation)
    if worst.health == "down" and last:
        worst = replace(worst, message=f"{last.message}; {worst.message}", advice=last.advice)
    return replace(worst, health="unhealthy")


def _unlike_wanted(observation: MachineObservation) -> Iterator[Condition]:
    """What isn't as machine.yaml and the lock ask for, the worst first."""
    worst, models_ = _worst(observation.instances), list(_models(observation))
    installed = list(_installation(observation))
    if observation.full:
        advice = "free space there: logs, records and outputs can't be written"
        yield _degraded("DiskFull", _first(observation.full), advice)
    if worst and not worst.is_healthy:
        yield _degraded(worst.reason, worst.message, worst.advice)
    yield from (each for each in installed if each.reason != "OptionalPartMissing")
    yield from (each for each in models_ if each.reason != "OptionalModelMissing")
    yield from _jobs(observation)
    yield from _workers(observation)
    if observation.cordoned:
        yield _degraded("GpuCordoned", _first(observation.cordoned), UNCORDON)
    runs = any(each.health != "down" for each in observation.instances.values())
    if observation.watcher and runs and not (observation.run and observation.run.is_on):
        yield _degraded("WatcherDown", f"{observation.watcher}, so nothing restarts what hangs")
    yield from (each for each in installed if each.reason == "OptionalPartMissing")
    yield from (each for each in models_ if each.reason == "OptionalModelMissing")
    if worst and worst.is_healthy:
        yield _degraded(worst.reason, worst.message, worst.advice)


def _worst(instances: Mapping[str, Condition]) -> Condition | None:
    """The worst condition that an instance has, with its name; None: all are healthy."""
    for health in WORST_FIRST:
        found = {name: each for name, each in instances.items() if each.health == health}
        for name, each in found.items():
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return replace(each, message=f"{each.told_of(name)}{more}", since=None, observed="")
    return None


def _installation(observation: MachineObservation) -> Iterator[Condition]:
    wanted, last = observation.installation, _last_run(observation)
    if observation.behind and wanted.generation:
        why = f"behind machine.yaml: {observation.behind}"
        yield _degraded(
            "BehindMachineFile",
            why,
            f"correct machine.yaml and run {PROGRAM}, or {PROGRAM} force=1",
        )
    if last:
        yield last
    if wanted.problem and observation.run and observation.run.is_on:
        now = ", ".join(task.name for task in observation.run.of("running"))
        yield _progressing("Installing", now or "the run is starting")
    elif wanted.problem:
        yield _degraded("NotApplied" if wanted.generation else "NotInstalled", wanted.problem)
    if wanted.lesser:
        yield _degraded("OptionalPartMissing", _first(wanted.lesser))


def _last_run(observation: MachineObservation) -> Condition | None:
    """Why the last run isn't finished; None when it succeeded or is in progress."""
    run = observation.run
    if run is not None and run.state == "failed":
        failed = [f": {task.name}: {task.reason}" for task in run.of("failed")]
        why = "the last run failed" + "".join(failed[:1])
        return _degraded("RunFailed", why, f"correct the error, then run {PROGRAM}")
    if run is not None and run.state == "interrupted":
        at = ", ".join(task.name for task in run.of("running"))
        why = "the last run was interrupted" + (f", at {at}" if at else "")
        return _degraded("RunInterrupted", why, f"run {PROGRAM}: it continues where it was")
    return None


def _models(observation: MachineObservation) -> Iterator[Condition]:
    if observation.missing is None:
        advice = "see that the volumes of the models answer"
        yield _degraded("ModelsUnknown", SILENT, advice)
        return
    is_coming = observation.awaits(*MODEL_TASKS)
    lists: tuple[tuple[Reason, list[str]], ...] = (
        (
            "ModelMissing",
            [name for name in observation.missing if name not in observation.optional],
        ),
        (
            "OptionalModelMissing",
            [name for name in observation.missing if name in observation.optional],
        ),
    )
    for reason, names in lists:
        mark = " (optional)" if reason == "OptionalModelMissing" else ""
        if names and is_coming:
            yield _progressing(reason, _first([f"the run brings {name}{mark}" for name in names]))
        elif names:
            yield _degraded(
                reason, _first([f"{name}{mark}: {observation.missing[name]}" for name in names])
            )


def _workers(observation: MachineObservation) -> Iterator[Condition]:
    idle = {name: f"{name} doesn't run: {why}" for name, why in observation.idle_workers.items()}
    coming = [why for name, why in idle.items() if observation.awaits(f"workers:{name}")]
    if missing := [why for why in idle.values() if why not in coming]:
        yield _degraded("WorkerDown", _first(missing))
    if coming:
        yield _progressing("WorkerDown", _first(coming))
    if faulty := [f"{name}: {why}" for name, why in observation.faulty_workers.items()]:
        yield _degraded("WorkerDegraded", _first(faulty), f"see its log: {PROGRAM} logs NAME")


def _jobs(observation: MachineObservation) -> Iterator[Condition]:
    faults = observation.faulty_jobs
    coming = [name for name in faults if observation.awaits(job_apps.TASKS[name])]
    if wrong := [why for name, why in faults.items() if name not in coming]:
        yield _degraded("JobsDown", _first(wrong))
    if coming:
        yield _progressing("JobsDown", _first([faults[name] for name in coming]))


def _first(sentences: Sequence[str]) -> str:
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"


def _degraded(reason: Reason, message: str, advice: str = RUN) -> Condition:
    return Condition("Degraded", "degraded", reason, message, advice)


def _progressing(reason: Reason, message: str) -> Condition:
    return Condition("Progressing", "progressing", reason, message, WAIT)
