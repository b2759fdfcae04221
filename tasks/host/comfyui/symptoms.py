"""What is wrong with an instance, judged from looks at it that follow each other.

Pure: the same looks give the same verdicts. Times are seconds of a clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...spec.sizes import shown
from ..system.usage import Effort
from .api import Jobs

IDLE = 0.1
"""Part of a core below which a process does nothing; a load or an engine build uses all of one."""
FAULTS = 1.0
"""Pages per second that a process waits for, above which it is reading."""
GAP = 20.0
"""Seconds between two looks after which they say nothing of the time between them."""


@dataclass(frozen=True)
class Rules:
    """When something counts as wrong; seconds, and bytes of memory."""

    hung: float
    job_timeout: float
    start_timeout: float
    memory: int | None = None


@dataclass(frozen=True)
class Look:
    """What was seen of one process at one moment."""

    at: float
    age: float
    answered: bool
    effort: Effort | None = None
    """Looked at when it doesn't answer, or nothing seems to work on its jobs."""
    jobs: Jobs | None = None
    """None: it was not asked."""
    memory: int | None = None
    """None: not measured."""


@dataclass(frozen=True)
class Story:
    """What is known of a process from the looks so far."""

    well: bool = False
    """It has answered once: it is no longer starting."""
    last: Look | None = None
    silent: float | None = None
    """Since when it has not answered."""
    idle: float = 0.0
    """Since when it has done nothing, as far as it was looked at."""
    jobs: Mapping[str, float] = field(default_factory=dict)
    """When each job was first seen running."""
    untaken: float | None = None
    """Since when jobs wait and none runs."""
    asked: float = 0.0
    """When it last said which jobs it has; older news is no reason for anything."""
    memory: int | None = None


def judge(before: Story, look: Look, rules: Rules) -> tuple[Story, str | None]:
    """The story with one more look, and what is wrong, in words that stay while it does."""
    after = _told(before, look)
    return after, _verdict(after, look, rules)


def _told(before: Story, look: Look) -> Story:
    seen = before.last is not None and look.at - before.last.at <= GAP
    silent = before.silent if seen and before.silent is not None else look.at
    untaken = before.untaken if seen else None
    jobs = before.jobs
    if look.jobs:
        jobs = {job: before.jobs.get(job, look.at) for job in look.jobs.running}
        none_runs = look.jobs.waiting and not look.jobs.running
        untaken = (look.at if untaken is None else untaken) if none_runs else None
    return Story(
        last=look,
        well=before.well or look.answered,
        silent=None if look.answered else silent,
        idle=before.idle if seen and _idles(before.last, look) else look.at,
        jobs=jobs,
        untaken=untaken,
        asked=look.at if look.jobs else before.asked,
        memory=before.memory if look.memory is None else look.memory,
    )


def _idles(before: Look | None, look: Look) -> bool:
    if before is None or before.effort is None or look.effort is None:
        return False
    # One that has just answered may be seen at the end of that.
    starved = look.effort.waits and not look.answered
    return not starved and idles(before.effort, look.effort, look.at - before.at)


def idles(before: Effort, after: Effort, seconds: float) -> bool:
    """Whether a process did nothing in these seconds."""
    return (
        after.cpu - before.cpu < IDLE * seconds and after.faults - before.faults <= FAULTS * seconds
    )


def _verdict(story: Story, look: Look, rules: Rules) -> str | None:
    if rules.memory is not None and story.memory is not None and story.memory > rules.memory:
        return f"more than {shown(rules.memory)} of memory (instances.limits.memory)"
    if story.silent is not None:
        if not story.well and look.age <= rules.start_timeout:
            return None
        if look.at - max(story.silent, story.idle) >= rules.hung:
            return f"no answer for {rules.hung:g} s"
        if look.at - story.silent >= rules.job_timeout:
            return f"no answer for {rules.job_timeout:g} s (instances.job_timeout)"
        return None
    for job, since in story.jobs.items():
        if story.asked - since >= rules.job_timeout:
            return f"job {job} runs for {rules.job_timeout:g} s (instances.job_timeout)"
    if story.untaken is not None and story.asked - max(story.untaken, story.idle) >= rules.hung:
        return f"jobs wait, and none was begun for {rules.hung:g} s"
    return None
