"""All jobs as they are now, in memory: lists, places in the queue, and who waits for a change."""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from ..jobs.job_store import Stored
from ..jobs.record import ENDED, Record
from ..jobs.worker_protocol import PROGRESS
from ..waking import woken
from .job_progress import JobProgress

PLACES_FOR = 0.5
"""Seconds for which places in the queue are not counted anew."""
QUEUE = "queue"
"""Whom to follow to hear that some job began to wait or to run, or ended."""
KEPT = 256
"""What a follower hasn't read yet of what ComfyUI said; the oldest goes first."""
Said = dict[str, Any] | bytes
"""A message of ComfyUI's WebSocket: JSON, or a binary preview."""


@dataclass(eq=False)
class Follower:
    """Somebody who wants to hear of jobs as they change."""

    said: deque[tuple[str, Said]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Job and message, in their order."""
    changed: dict[str, None] = field(default_factory=dict)
    """Jobs whose record changed, in the order of their first change."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        self._news.set()

    async def news(self, seconds: float) -> bool:
        """Return when there is something to read; False: not within so many seconds."""
        if not await woken(self._news, seconds):
            return False
        self._news.clear()
        return True


class JobView:
    """What the watch told. Its functions are called in one event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, Stored] = {}
        self._order: list[tuple[float, str]] = []
        """Time of submission and id of all jobs, sorted."""
        self._waiting: set[str] = set()
        self._leased: set[str] = set()
        self._dead: set[str] = set()
        self._ends: list[tuple[float, str]] = []
        """Time of the end and id of all that have ended, sorted."""
        self._progress: dict[str, JobProgress] = {}
        self._followers: dict[str, set[Follower]] = {}
        self._places: tuple[float, dict[str, int]] = (float("-inf"), {})
        self.stepped: Callable[[Record | None, Record], None] = lambda before, now: None
        """Hears of each step of a job after all were told that there were."""
        self.complete = False
        """Whether all jobs that there were have been told."""
        self.ended = False
        """Whether the gateway ends, so that nobody should follow any more."""

    # The watch

    def changed(self, stored: Stored) -> None:
        """A job is new, or another step was made."""
        record = stored.record
        known = self._jobs.get(record.id)
        if known is None:
            bisect.insort(self._order, (record.submitted, record.id))
        self._jobs[record.id] = stored
        for state, those in (
            ("waiting", self._waiting),
            ("leased", self._leased),
            ("dead", self._dead),
        ):
            (those.add if record.state == state else those.discard)(record.id)
        self._move_end(known.record if known else None, record)
        if record.state != "leased":
            self._progress.pop(record.id, None)
        if self.complete:
            self.stepped(known.record if known else None, record)
        if known is None or not _is_same_end(known.record, record):
            self._tell(record.id, record.client)

    def forgotten(self, job: str) -> None:
        """A job is there no longer."""
        known = self._jobs.pop(job, None)
        if known is None:
            return
        at = bisect.bisect_left(self._order, (known.record.submitted, job))
        del self._order[at]
        self._waiting.discard(job)
        self._leased.discard(job)
        self._dead.discard(job)
        self._move_end(known.record, None)
        self._progress.pop(job, None)
        self._tell(job, known.record.client)

    async def said(self, message: Msg) -> None:
        """ComfyUI said something about a job."""
        job = message.subject.removeprefix(f"{PROGRESS}.")
        said: Said = message.data
        if (message.headers or {}).get("Kind") != "binary":
            try:
                said = json.loads(message.data)
            except (ValueError, RecursionError):
                return
            if not isinstance(said, dict):
                return
        if job in self._leased:
            progress = self._progress.setdefault(job, JobProgress(self._jobs[job].record.nodes))
            if isinstance(said, bytes):
                progress.see(said)
            else:
                progress.hear(said)
        for follower in self._audience(job):
            follower.said.append((job, said))
            follower.tell()

    # Questions

    def ids(self) -> frozenset[str]:
        """All jobs that there are."""
        return frozenset(self._jobs)

    def get(self, job: str) -> Stored | None:
        return self._jobs.get(job)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def dead(self) -> int:
        """How many ended their instance or worker each time."""
        return len(self._dead)

    def oldest(self) -> float | None:
        """When the oldest that waits was submitted; None: none waits."""
        return min((each.submitted for each in self.those_waiting()), default=None)

    def last_ended(self, most: int) -> list[Record]:
        """Those that ended last, the last one first."""
        return [self._jobs[job].record for _, job in reversed(self._ends[-most:])]

    def progress(self, job: str) -> JobProgress | None:
        """How far a running job is; None: it doesn't run, or said nothing yet."""
        return self._progress.get(job)

    def place(self, job: str) -> int | None:
        """From 1 on; None: it doesn't wait. Which one is next also depends on the instances."""
        at, places = self._places
        if time.monotonic() - at > PLACES_FOR or (job in self._waiting and job not in places):
            places = {each.id: place for place, each in enumerate(self.queue(), 1)}
            self._places = (time.monotonic(), places)
        return places.get(job) if job in self._waiting else None

    def those_waiting(self) -> Iterator[Record]:
        """All that wait, in no order."""
        return (self._jobs[job].record for job in self._waiting)

    def queue(self) -> list[Record]:
        """Those that wait, the most urgent first."""
        return sorted(
            self.those_waiting(), key=lambda each: (-each.priority, each.submitted, each.id)
        )

    def running(self) -> list[Record]:
        """Those that are leased to an instance, the oldest first."""
        leased = (self._jobs[job].record for job in self._leased)
        return sorted(leased, key=lambda each: (each.submitted, each.id))

    def newest(self, before: tuple[float, str] | None = None) -> Iterator[Record]:
        """All jobs, the newest first, or those that are older than the one of this time and id."""
        end = len(self._order) if before is None else bisect.bisect_left(self._order, before)
        for at in range(end - 1, -1, -1):
            yield self._jobs[self._order[at][1]].record

    # Followers

    @contextmanager
    def following(self, whom: str) -> Iterator[Follower]:
        """Hear of a job, of all jobs of a `client_of`, or of the QUEUE."""
        me = Follower()
        self._followers.setdefault(whom, set()).add(me)
        try:
            yield me
        finally:
            self._followers[whom].discard(me)
            if not self._followers[whom]:
                del self._followers[whom]

    async def see(self, job: str, revision: int, seconds: float) -> None:
        """Return when this step of the job was told, or when the time is over."""
        until = time.monotonic() + seconds
        with self.following(job) as me:
            while (stored := self._jobs.get(job)) is None or stored.revision < revision:
                left = until - time.monotonic()
                if left <= 0 or not await me.news(left):
                    return

    async def wait_for_end(self, job: str, seconds: float) -> None:
        """Return when the job has ended or is gone, or when the time is over."""
        until = time.monotonic() + seconds
        with self.following(job) as me:
            while (stored := self._jobs.get(job)) and stored.record.state not in ENDED:
                left = until - time.monotonic()
                if left <= 0 or self.ended or not await me.news(left):
                    return

    def end(self) -> None:
        """Let all followers go."""
        self.ended = True
        for those in self._followers.values():
            for follower in those:
                follower.tell()

    def _move_end(self, before: Record | None, now: Record | None) -> None:
        """Know of the end of a job, or no longer."""
        if before and before.state in ENDED:
            del self._ends[bisect.bisect_left(self._ends, (before.ended, before.id))]
        if now and now.state in ENDED:
            bisect.insort(self._ends, (now.ended, now.id))

    def _tell(self, job: str, client: str) -> None:
        for follower in self._audience(job, client):
            follower.changed[job] = None
            follower.tell()
        for follower in self._followers.get(QUEUE, ()):
            follower.tell()

    def _audience(self, job: str, client: str = "") -> Iterator[Follower]:
        yield from self._followers.get(job, ())
        if not client and job in self._jobs:
            client = self._jobs[job].record.client
        if client:
            yield from self._followers.get(client_of(client), ())


def _is_same_end(before: Record, now: Record) -> bool:
    """Whether only what became of telling its end was noted: that is no second end."""
    return before.state in ENDED and (before.state, before.ended) == (now.state, now.ended)


def client_of(client: str) -> str:
    """Stands for all jobs of a clientId of ComfyUI's own protocol."""
    return f"client {client}"
