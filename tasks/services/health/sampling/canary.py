"""The canary: a job of our own that an idle instance must run now and then.

An instance whose worker thread died answers like a healthy one; only a job shows the difference.
`due` and `overdue` are pure, without requests; times are monotonic seconds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ....host.comfyui import api, own_jobs
from ....host.comfyui.own_jobs import Trial
from ....host.system.failure import Failure
from ....spec.workflow_file import Prompt

RETRY_AFTER = 30.0
"""Seconds until a failed canary is run again, or `every` if that is less."""
PAUSES = (api.POLL, 2.0)
"""Seconds between two requests, at first and at most: the queue includes all prompts."""
FAILED = "its canary job failed: "
NOT_TAKEN = "its canary job isn't taken: the worker thread is dead"


@dataclass(frozen=True)
class Schedule:
    """How often a canary is due, and how long it may take; seconds."""

    every: float
    timeout: float
    untaken: float = 60.0
    """How long a canary may wait while nothing runs: longer than the watcher takes to restart an
    instance for that, which it can only see while the job is queued."""


@dataclass(frozen=True)
class Queue:
    """The jobs of an instance; `ours` are those of health servers."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    ours: frozenset[str] = frozenset()
    """Including those of an earlier health server."""

    @property
    def theirs(self) -> int:
        return sum(job not in self.ours for job in (*self.running, *self.waiting))

    @property
    def busy(self) -> bool:
        """Whether another client's job runs."""
        return any(job not in self.ours for job in self.running)


@dataclass(frozen=True)
class Record:
    """What is known of one process. A new process has an empty record, so a canary is due."""

    proved: float | None = None
    """When it last had another client's job, or ended a canary."""
    failed: bool = False
    """Its last canary failed."""


def due(record: Record, schedule: Schedule, now: float) -> bool:
    """Whether an idle instance should run a canary. After a failed one, jobs prove nothing."""
    pause = min(schedule.every, RETRY_AFTER) if record.failed else schedule.every
    return record.proved is None or now - record.proved >= pause


def after(record: Record, theirs: int, now: float) -> Record:
    """The record after one more sample of the queue, with `theirs` jobs of other clients."""
    return Record(now, record.failed) if theirs and not record.failed else record


@dataclass(frozen=True)
class Wait:
    """Since when no job of another client has run, and no job at all."""

    alone: float
    idle: float


def waited(wait: Wait, queue: Queue, now: float) -> Wait:
    """The wait after one more sample of the queue."""
    return Wait(now if queue.busy else wait.alone, now if queue.running else wait.idle)


def overdue(job: str, queue: Queue, wait: Wait, now: float, schedule: Schedule) -> str | None:
    """Why an unfinished canary has failed; None: it may still succeed."""
    if not queue.running:
        return NOT_TAKEN if now - wait.idle >= schedule.untaken else None
    if now - wait.alone < schedule.timeout:
        return None
    what = "runs" if job in queue.running else "waits behind an earlier canary"
    return f"its canary job still {what} after {schedule.timeout:g} s"


class Canary:
    """The canary of one instance; one thread calls `step` repeatedly."""

    def __init__(self, file: Path, schedule: Schedule) -> None:
        self._file = file
        self._schedule = schedule
        self._pid: int | None = None
        self._record = Record()
        self.last: Trial | None = None
        """The outcome of this process's last canary."""

    def step(
        self, pid: int, listen: str, port: int, jobs: int | None, idle: bool, scheme: str = "http"
    ) -> Trial | None:
        """Run a canary when it is due, and wait for it.

        `jobs` is the length of the queue when last sampled; `idle`: the instance is warm, answers,
        and is neither drained nor replaced. Raises Failure when the workflow can't be read.
        """
        if pid != self._pid:
            self._pid, self._record, self.last = pid, Record(), None
        now = time.monotonic()
        if jobs and not due(self._record, self._schedule, now):
            self._record = after(self._record, jobs, now)
        if not idle or jobs is None or not due(self._record, self._schedule, now):
            return self.last
        prompt = own_jobs.vary(own_jobs.read_workflow(self._file))
        client = api.Client(listen, port, scheme=scheme)
        with suppress(OSError, LookupError, TypeError, ValueError, AttributeError):
            queue = read_queue(client)
            if queue.theirs:
                self._record = Record(now, self._record.failed)
                return self.last
            for job in queue.waiting:
                client.delete(job)
            if trial := run(client, prompt, self._schedule):
                self.last = trial
                self._record = Record(time.monotonic(), not trial.ok)
        return self.last


def read_queue(client: api.Client) -> Queue:
    """The jobs of an instance. Raises OSError when it doesn't answer, and LookupError, TypeError,
    ValueError or AttributeError when it doesn't answer like ComfyUI."""
    answer = client.get("/queue")
    jobs = [*answer["queue_running"], *answer["queue_pending"]]
    return Queue(
        tuple(str(job[1]) for job in answer["queue_running"]),
        tuple(str(job[1]) for job in answer["queue_pending"]),
        frozenset(str(job[1]) for job in jobs if job[3].get("client_id") == own_jobs.CLIENT),
    )


def run(client: api.Client, prompt: Prompt, schedule: Schedule) -> Trial | None:
    """Run one canary; a failed one is removed from the queue.

    It waits for other clients' jobs as long as they take. None: no result, since it was removed
    from the queue or the process ended. Raises OSError when nothing answers.
    """
    at, begin, refused = time.time(), time.monotonic(), False
    try:
        job = client.submit(prompt, client=own_jobs.CLIENT)
        why = _wait(client, job, schedule)
    except Failure as failure:
        refused = isinstance(failure, api.RefusedJob)
        why = FAILED + own_jobs.without_address(client, failure)
    except api.ErrorAnswer as error:
        why = FAILED + own_jobs.describe_error(error)
    if why is None:
        return None
    return Trial(not why, at, round(time.monotonic() - begin, 2), why, refused)


def _wait(client: api.Client, job: str, schedule: Schedule) -> str | None:
    """Why it failed, empty if it succeeded; None: it left the queue. Raises Failure on an error."""
    begin = time.monotonic()
    wait, pause, missed = Wait(begin, begin), PAUSES[0], False
    while True:
        # An instance that loads a large model may not answer for a while.
        with suppress(TimeoutError):
            if client.done(job):
                return ""
            queue, now = read_queue(client), time.monotonic()
            wait = waited(wait, queue, now)
            if job not in (*queue.running, *queue.waiting):
                # It may have ended between the two requests.
                if missed:
                    return None
                missed = True
            elif why := overdue(job, queue, wait, now, schedule):
                client.delete(job)
                return why
        time.sleep(pause)
        pause = min(pause * 1.2, PAUSES[1])
