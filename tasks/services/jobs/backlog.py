"""The waiting jobs, in an order from which the next is found without looking at them all."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .demand import Need, Waiting

Kind = tuple[str, int, Need, int]
"""Owner, priority, need and memory: jobs in which these are equal run in the order they came."""


@dataclass
class Backlog:
    """Ten thousand jobs of one workflow with other seeds are one line."""

    _jobs: dict[str, Waiting] = field(default_factory=dict)
    _lines: dict[Kind, list[tuple[float, str]]] = field(default_factory=dict)
    """Heaps of time and id; those that left are removed when they come first."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._jobs.values())

    def get(self, job: str) -> Waiting | None:
        return self._jobs.get(job)

    def add(self, job: Waiting) -> None:
        """Add a job, or replace it."""
        known = self._jobs.get(job.id)
        self._jobs[job.id] = job
        if known is None or (_kind(known), known.since) != (_kind(job), job.since):
            heapq.heappush(self._lines.setdefault(_kind(job), []), (job.since, job.id))

    def remove(self, job: str) -> Waiting | None:
        """Take a job out and return it; None: it doesn't wait."""
        return self._jobs.pop(job, None)

    def heads(self) -> Iterator[Waiting]:
        """Of each line the job that waits longest."""
        for kind, line in [*self._lines.items()]:
            while line and not self._stands(kind, *line[0]):
                heapq.heappop(line)
            if line:
                yield self._jobs[line[0][1]]
            else:
                del self._lines[kind]

    def pass_over(self, jobs: Iterable[str], now: float) -> None:
        """Note that others go before these."""
        for name in jobs:
            job = self._jobs.get(name)
            if job is not None and job.passed is None:
                self._jobs[name] = replace(job, passed=now)

    def _stands(self, kind: Kind, since: float, name: str) -> bool:
        job = self._jobs.get(name)
        return job is not None and (_kind(job), job.since) == (kind, since)


def _kind(job: Waiting) -> Kind:
    return (job.owner, job.priority, job.need, job.above)
