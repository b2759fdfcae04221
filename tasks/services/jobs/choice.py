"""Which job runs next, and where: a pure function of what waits and of the instances.

Priority decides, and each AGEING seconds of waiting count as one more; then who has the fewest
jobs running; then who waits longest. A checkpoint takes 5 to 20 s to load, so for a bounded time a
job lets others go first whose checkpoint is loaded where it would run, or waits for a busy instance
that has its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .demand import Instance, Need, Waiting, fits, has_room

AGEING = 60.0
"""Seconds of waiting that count as much as one step of priority."""
OVERTAKEN_FOR = 10.0
"""Seconds for which jobs that need no other checkpoint may go first."""
IDLE_FOR = 2.0
"""Seconds for which an instance stays idle, since a busy one has the checkpoint."""


@dataclass(frozen=True)
class Choice:
    """One job for one idle instance."""

    job: str
    instance: str
    passed: tuple[str, ...] = ()
    """Jobs that could have had this instance and come first otherwise."""


def choose(
    heads: Iterable[Waiting],
    instances: Collection[Instance],
    running: Mapping[str, int],
    now: float,
) -> Choice | None:
    """The next job to start; None: none can or should start now.

    `heads` are the waiting jobs, of those with equal owner, priority and need at least the one that
    waits longest. `running` is owner → how many of his jobs run.
    """
    idle = [each for each in instances if each.idle]
    order = sorted(heads, key=lambda job: _rank(job, running, now)) if idle else []
    loaded_for = {job.need.checkpoint for job in order}
    passed: list[tuple[Waiting, Instance]] = []
    for job in order:
        there = [each for each in idle if fits(job, each)]
        if not there:
            continue
        best = min(there, key=lambda each: _cost(job.need, each, loaded_for))
        if _waits_for_busy(job, best, instances, now):
            continue
        if _lets_others_go_first(job, best, order, now):
            passed.append((job, best))
            continue
        before = tuple(other.id for other, _ in passed if fits(other, best))
        return Choice(job.id, best.name, before)
    return Choice(passed[0][0].id, passed[0][1].name) if passed else None


def _rank(job: Waiting, running: Mapping[str, int], now: float) -> tuple[int, int, float, str]:
    return (-_urgency(job, now), running.get(job.owner, 0), job.since, job.id)


def _cost(
    need: Need, instance: Instance, loaded_for: Collection[str]
) -> tuple[bool, bool, bool, int, float, str]:
    """What speaks against an instance that the job fits on, the weightiest first."""
    is_loaded = not need.checkpoint or instance.checkpoint == need.checkpoint
    return (
        not has_room(need, instance),
        not is_loaded,
        # Others wait for what it has loaded.
        instance.checkpoint not in ("", need.checkpoint) and instance.checkpoint in loaded_for,
        # Larger cards are for those who need them.
        instance.memory or 0,
        instance.idle_since or 0.0,
        instance.name,
    )


def _would_load(need: Need, instance: Instance) -> bool:
    return bool(need.checkpoint) and instance.checkpoint != need.checkpoint


def _waits_for_busy(
    job: Waiting, best: Instance, instances: Collection[Instance], now: float
) -> bool:
    """Whether the job leaves an idle instance for a busy one that has its checkpoint."""
    if not _would_load(job.need, best) or now - job.since >= IDLE_FOR:
        return False
    return any(
        not each.idle and not _would_load(job.need, each) and fits(job, each) for each in instances
    )


def _lets_others_go_first(
    job: Waiting, best: Instance, order: Iterable[Waiting], now: float
) -> bool:
    """Whether another job of the same urgency would find its checkpoint loaded there."""
    if not _would_load(job.need, best) or not best.checkpoint:
        return False
    if job.passed is not None and now - job.passed >= OVERTAKEN_FOR:
        return False
    return any(
        other.need.checkpoint == best.checkpoint
        and _urgency(other, now) >= _urgency(job, now)
        and fits(other, best)
        for other in order
    )


def _urgency(job: Waiting, now: float) -> int:
    return job.priority + int(max(0.0, now - job.since) / AGEING)
