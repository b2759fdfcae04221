"""What is wrong with an instance that only measurements over time tell: it hangs, a job is stuck.

Pure: the same measurements give the same symptoms. Times are monotonic seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...spec.sizes import shown
from ..system.usage import Effort
from .api import Jobs
from .condition import Condition, Reason

IDLE = 0.1
"""Share of a core below which a process is idle; a load or an engine build uses a whole core."""
FAULTS = 1.0
"""Major page faults per second above which a process is reading."""
BUSY = 10.0
"""Seconds without an answer in which a working process counts as fine: it loads a checkpoint."""
LONGEST_GAP = 20.0
"""Seconds between two measurements; after a longer gap nothing is known of the time between."""


@dataclass(frozen=True)
class Limits:
    """When something counts as wrong; seconds, and bytes for memory."""

    hung: float
    job_timeout: float
    start_timeout: float
    memory: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One process at one moment; `age` is how long it has run."""

    at: float
    age: float
    answered: bool
    effort: Effort | None = None
    """Measured when it doesn't answer, or doesn't seem to work on its jobs."""
    jobs: Jobs | None = None
    """None: not asked."""
    memory: int | None = None
    """None: not measured."""


@dataclass(frozen=True)
class History:
    """What is known of a process from its measurements so far."""

    has_answered: bool = False
    """It has finished starting."""
    last: Measurement | None = None
    silent: float | None = None
    """Since when it has not answered."""
    idle: float = 0.0
    """Since when it has been idle, as far as that was measured."""
    jobs: Mapping[str, float] = field(default_factory=dict)
    """When each job was first observed running."""
    untaken: float | None = None
    """Since when jobs have waited while none runs."""
    asked: float = 0.0
    """When it last listed its jobs; older lists are ignored."""
    memory: int | None = None


def follow(before: History, now: Measurement, limits: Limits) -> tuple[History, Condition | None]:
    """The history with one more measurement, and what is wrong; its message stays the same."""
    after = _continued(before, now)
    return after, _symptom(after, now, limits)


def _continued(before: History, now: Measurement) -> History:
    follows = before.last is not None and now.at - before.last.at <= LONGEST_GAP
    silent = before.silent if follows and before.silent is not None else now.at
    untaken = before.untaken if follows else None
    jobs = before.jobs
    if now.jobs:
        jobs = {job: before.jobs.get(job, now.at) for job in now.jobs.running}
        none_runs = now.jobs.waiting and not now.jobs.running
        untaken = (now.at if untaken is None else untaken) if none_runs else None
    return History(
        last=now,
        has_answered=before.has_answered or now.answered,
        silent=None if now.answered else silent,
        idle=before.idle if follows and _idles(before.last, now) else now.at,
        jobs=jobs,
        untaken=untaken,
        asked=now.at if now.jobs else before.asked,
        memory=before.memory if now.memory is None else now.memory,
    )


def _idles(before: Measurement | None, now: Measurement) -> bool:
    if before is None or before.effort is None or now.effort is None:
        return False
    # A process that has just answered may still be finishing that.
    starved = now.effort.waits and not now.answered
    return not starved and idles(before.effort, now.effort, now.at - before.at)


def idles(before: Effort, after: Effort, seconds: float) -> bool:
    """Whether a process was idle in these seconds."""
    return (
        after.cpu - before.cpu < IDLE * seconds and after.faults - before.faults <= FAULTS * seconds
    )


def _symptom(history: History, now: Measurement, limits: Limits) -> Condition | None:
    if limits.memory is not None and (history.memory or 0) > limits.memory:
        why = f"more than {shown(limits.memory)} of memory (instances.limits.memory)"
        return symptom("MemoryLimit", why)
    if history.silent is not None:
        if not history.has_answered and now.age <= limits.start_timeout:
            return None
        if now.at - max(history.silent, history.idle) >= limits.hung:
            return symptom("Hanging", f"no answer for {limits.hung:g} s")
        if now.at - history.silent >= limits.job_timeout:
            why = f"no answer for {limits.job_timeout:g} s (instances.job_timeout)"
            return symptom("JobTimeout", why)
        return None
    for job, since in history.jobs.items():
        if history.asked - since >= limits.job_timeout:
            why = f"job {job} has run for {limits.job_timeout:g} s (instances.job_timeout)"
            return symptom("JobTimeout", why)
    if (
        history.untaken is not None
        and history.asked - max(history.untaken, history.idle) >= limits.hung
    ):
        why = f"its worker thread is dead: jobs wait, and none has started for {limits.hung:g} s"
        return symptom("WorkerThreadDead", why)
    return None


def silence(since: float, now: float, works: bool) -> Condition | None:
    """The symptom of an instance silent since then (epoch seconds); one that works may be busy."""
    silent = f"no answer since {time.strftime('%H:%M:%S', time.localtime(since))}"
    if not works:
        return symptom("Hanging", f"it hangs: {silent}, and it is idle")
    return symptom("Busy", f"{silent}, but it is working") if now - since >= BUSY else None


def dead_thread(job: str) -> Condition:
    """The symptom of an instance that lists a running job but has lost its thread."""
    why = f"its worker thread is dead: job {job} is listed as running, but nothing works on it"
    return symptom("WorkerThreadDead", why)


def symptom(reason: Reason, why: str) -> Condition:
    return Condition("Functional", "unhealthy", reason, why)
