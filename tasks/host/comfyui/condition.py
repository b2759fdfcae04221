"""The condition of an instance, or of the machine: the one type that holds health.

Code decides by `health`, `status` and `reason`; `message` and `advice` are for people alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Health = Literal[
    "healthy", "progressing", "degraded", "disabled", "starting", "installing", "draining",
    "unhealthy", "crash loop", "down", "failed", "interrupted", "unknown", "error",
]  # fmt: skip
HEALTHY: Collection[Health] = ("healthy", "progressing", "degraded", "disabled")
"""With these the health server answers 200, and the commands end with 0."""

InstanceType = Literal[
    "Ready", "Observed", "Running", "Functional", "ModelsPresent", "AcceptsJobs", "Complete",
    "WorkflowsReady",
]  # fmt: skip
"""What a condition of an instance is about. Ready sums up the others; ModelsPresent: it lists the
models that are there; Complete: nothing optional is missing;
WorkflowsReady: it has what the workflows of machine.yaml need."""
MachineType = Literal["Available", "Progressing", "Degraded"]
"""What a condition of the machine is about. Available: an instance takes jobs; Progressing: a run
still brings what machine.yaml asks for; Degraded: something isn't as it asks for."""
Type = Literal[InstanceType, MachineType]
Status = Literal["True", "False", "Unknown"]


Reason = Literal[
    "Healthy", "NotObserved",
    # The process
    "NotStarted", "Stopped", "Exited", "Killed", "OutOfMemory", "CrashLoop", "AwaitsRun",
    "NotSupervised",
    # What it answers and does
    "Starting", "StartTimeout", "NoAnswer", "WrongAnswer", "Hanging", "Busy", "JobTimeout",
    "WorkerThreadDead", "MemoryLimit", "WarmingUp", "WarmupTimeout", "WarmupFailed",
    "CanaryFailed", "CanaryRefused", "Draining",
    # What it has loaded
    "NodesNotListed", "NodeFailed", "NodeClassMissing", "ModelFolderUnused", "ModelsUnknown",
    "ModelMissing", "ModelNotListed", "OptionalNodeFailed", "OptionalModelMissing",
    "WorkflowClassMissing", "WorkflowModelMissing",
    # The machine
    "Disabled", "NoInstances", "NoneReady", "Installing", "NotInstalled", "RunFailed",
    "RunInterrupted", "BehindMachineFile", "NotApplied", "OptionalPartMissing",
    "WorkerDown", "WorkerDegraded", "ProbeFailed", "WatcherDown", "GpuCordoned", "DiskFull",
    "JobsDown",
    # The health server itself
    "AnswersOld", "Refused",
    # Recorded by another version, without a code or with one that this version doesn't know
    "Unspecified",
]  # fmt: skip
"""Why a condition has its status; a code that stays when the sentence changes."""


@dataclass(frozen=True)
class Condition:
    """One condition. `since` is in seconds since the epoch, None: not known."""

    type: Type
    health: Health
    """The health that an instance or the machine has because of it."""
    reason: Reason
    message: str = ""
    """Why it isn't better, in one sentence; empty when healthy."""
    advice: str = ""
    """What to do; empty when there is nothing."""
    since: float | None = None
    observed: str = ""
    """What was observed: the fingerprint of the process; of the machine, the digest of the
    machine.yaml and lock that it was compared with. Empty: nothing."""

    @property
    def is_healthy(self) -> bool:
        return self.health in HEALTHY

    @property
    def status(self) -> Status:
        if self.health == "unknown":
            return "Unknown"
        if self.type in ("Ready", "Available"):
            return "True" if self.is_healthy else "False"
        is_true = (self.reason == "Healthy") is not (self.type in ("Progressing", "Degraded"))
        return "True" if is_true else "False"

    def told(self) -> str:
        """One line: its health, why, and what to do."""
        why = "; ".join(filter(None, (self.message, self.advice)))
        return f"{self.health}: {why}" if why else self.health

    def told_of(self, name: str) -> str:
        """One sentence about the instance of that name."""
        health = "in a crash loop" if self.health == "crash loop" else self.health
        return f"{name} is {health}" + (f": {self.message}" if self.message else "")


def healthy(kind: Type = "Ready", observed: str = "") -> Condition:
    return Condition(kind, "healthy", "Healthy", observed=observed)


def ready(conditions: Sequence[Condition], observed: str = "") -> Condition:
    """Sums up conditions, which come with the worst first; healthy when there is none."""
    return replace(conditions[0], type="Ready") if conditions else healthy(observed=observed)


def read(entry: Mapping[str, Any]) -> Condition:
    """A condition from an answer of the health server. Raises LookupError if it is malformed."""
    return Condition(
        entry["type"], entry["health"], reason(entry["reason"]), entry["message"], entry["advice"],
        entry["since"], entry["observed"],
    )  # fmt: skip


def reason(code: object) -> Reason:
    """The reason of that code; Unspecified for one that this version doesn't know."""
    return next((known for known in get_args(Reason) if known == code), "Unspecified")
