"""Which jobs run where, and since when nobody has renewed that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .record import Record
from .worker_protocol import Lease

LASTS = 13.0
"""Seconds. In a cluster's elections the store is silent for 4 to 8 s."""


@dataclass
class _Leased:
    record: Record
    renewed: float


class Leases:
    """The leased jobs. Times are of the scheduler's own clock: no record holds one."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Leased] = {}
        self._owners: Counter[str] = Counter()

    def note(self, record: Record, now: float) -> None:
        """A job is leased; another attempt than the known one begins anew."""
        known = self._jobs.get(record.id)
        if known and known.record.attempt == record.attempt:
            known.record = record
            return
        self.end(record.id)
        self._jobs[record.id] = _Leased(record, now)
        self._owners[record.owner] += 1

    def end(self, job: str) -> None:
        """A job isn't leased, or no more."""
        if known := self._jobs.pop(job, None):
            self._owners[known.record.owner] -= 1

    def renew(self, job: str, attempt: int, now: float) -> None:
        known = self._jobs.get(job)
        if known and known.record.attempt == attempt:
            known.renewed = now

    def renew_all(self, now: float) -> None:
        """Begin afresh: whoever was silent may not have been heard."""
        for each in self._jobs.values():
            each.renewed = now

    def of(self, instance: str, but: frozenset[str]) -> tuple[Lease, ...]:
        """The leases of an instance, but those of jobs that are on their way to it."""
        return tuple(
            Lease(job=job, attempt=each.record.attempt, cancel=each.record.cancel)
            for job, each in self._jobs.items()
            if each.record.instance == instance and job not in but
        )

    def running(self) -> Mapping[str, int]:
        """Owner → how many of his jobs run."""
        return self._owners

    def expired(self, now: float) -> Iterator[Record]:
        for each in [*self._jobs.values()]:
            if now - each.renewed > LASTS:
                yield each.record
