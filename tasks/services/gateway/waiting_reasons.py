"""Why jobs wait for an instance in vain. It is asked when it is shown: instances come and go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..jobs.demand import Need, Waiting, fits, why_unfit
from ..jobs.record import Record
from .announced_instances import AnnouncedInstances

NAMED = 3
"""Instances that are named in one reason."""
Kind = tuple[tuple[str, ...], tuple[str, ...], int]
"""Classes, models and memory: jobs in which these are equal wait for the same instances."""


@dataclass(frozen=True)
class Stuck:
    """Jobs that wait for one reason."""

    why: str
    jobs: int
    first: Record
    """The one that was submitted first."""


class WaitingReasons:
    def __init__(self, instances: AnnouncedInstances) -> None:
        self._instances = instances

    def why(self, record: Record) -> str | None:
        """Why no instance can have this job, now or when it is idle again; None: it doesn't wait,
        one can, or the instances aren't known yet."""
        return self._why(_kind(record)) if record.state == "waiting" else None

    def stuck(self, waiting: Iterable[Record]) -> list[Stuck]:
        """Those of these jobs that wait in vain, by their reasons, the oldest first."""
        groups: dict[Kind, list[Record]] = {}
        for each in waiting:
            groups.setdefault(_kind(each), []).append(each)
        by_reason: dict[str, list[Record]] = {}
        for kind, those in groups.items():
            if why := self._why(kind):
                by_reason.setdefault(why, []).extend(those)
        found = [
            Stuck(why, len(those), min(those, key=lambda each: (each.submitted, each.id)))
            for why, those in by_reason.items()
        ]
        return sorted(found, key=lambda each: (each.first.submitted, each.first.id))

    def _why(self, kind: Kind) -> str | None:
        if not self._instances.settled:
            return None
        if not self._instances.having:
            return "no instance is there: none has been heard of for a minute"
        classes, models, above = kind
        job = Waiting("", Need(frozenset(classes), frozenset(models)), 0.0, above=above)
        if why := why_unfit(job, self._instances.having):
            return why
        absent = self._instances.absent()
        able = [each.name for each in self._instances.having if fits(job, each)]
        if not all(name in absent for name in able):
            return None
        named = ", ".join(f"{name} ({absent[name]})" for name in able[:NAMED])
        more = f" and {len(able) - NAMED} more" if len(able) > NAMED else ""
        return f"no instance takes it: {named}{more}"


def _kind(record: Record) -> Kind:
    return (record.classes, record.models, record.above)
