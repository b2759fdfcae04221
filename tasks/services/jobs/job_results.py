"""What becomes of a job that has run: its files are kept, and its record is written once."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from nats.errors import Error as NatsError

from ...spec.layout import Layout
from . import job_files, worker_protocol
from .instance_client import Away, Ended, InstanceClient
from .instance_place import Place
from .job_settings import Settings
from .job_store import Overtaken, Store, Stored
from .job_transfer import JobTransfer
from .record import Error, State
from .worker_task import Task

AGAIN = 0.5
"""Seconds between two attempts to write a result."""
MISSES = 3
"""How often a job is started again since its instance named a file that isn't there."""


class JobResults:
    """Of the jobs of one instance."""

    def __init__(
        self, store: Store, instance: InstanceClient, settings: Settings, place: Place,
        transfer: JobTransfer | None,
    ) -> None:  # fmt: skip
        """With `transfer` other machines may take part."""
        self._store, self._instance, self._transfer = store, instance, transfer
        self._layout, self._machine = Layout(settings.workspace), settings.machine
        self._gpu = place.gpu
        self._name = worker_protocol.instance_name(settings.machine, place.name)

    async def end_state(self, task: Task, ended: Ended) -> dict[str, Any]:
        record = task.stored.record
        if ended.error:
            return ended_as("failed", error=ended.error)
        if ended.interrupted:
            # Who ended it before us, and died, may have given it back too.
            if task.given_back or (task.adopted and not record.cancel):
                return record.given_back()
            return ended_as("cancelled")
        try:
            outputs = await self._collect(record.id, ended.outputs)
            about = await self._transfer.published(record) if self._transfer else {}
        except job_files.Missing as missing:
            if record.returned - record.rested < MISSES:
                # It answered from its cache with a file that was removed: let it forget.
                with suppress(Away):
                    await asyncio.to_thread(self._instance.free)
                return record.given_back()
            message = f"the instance named a file that isn't there: {missing}"
            return ended_as("failed", error=Error(type="missing_output", message=message))
        except OSError as error:
            return ended_as("failed", error=Error(type="output_not_kept", message=str(error)))
        return ended_as("succeeded", outputs=outputs, **about)

    async def _collect(self, job: str, outputs: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(job_files.collect, self._layout, self._gpu, job, outputs)

    async def write(self, task: Task, following: dict[str, Any]) -> None:
        """Write what became of the job, however long the store is away; unless it isn't ours any
        more: then another has it, and this result is none."""
        stored = task.stored
        while True:
            record = stored.record
            try:
                await self._store.replace(stored, record.next(**following))
            except Overtaken:
                now = await self.reread(task)
                if now is None:
                    await self._drop(task, following)
                    return
                # Somebody asked to cancel it meanwhile.
                stored = now
                if following["state"] == "waiting" and stored.record.cancel:
                    following = ended_as("cancelled")
            except (NatsError, asyncio.TimeoutError):
                await asyncio.sleep(AGAIN)
            else:
                return

    async def _drop(self, task: Task, following: dict[str, Any]) -> None:
        """Remove the files of a run that doesn't count, unless those of another may lie there."""
        if self._transfer and following.get("stored"):
            await self._transfer.forget(task.stored.record)
        now = await self._read(task)
        here = worker_protocol.instance_name(self._machine, "")
        is_here = now is not None and now.record.instance.startswith(here)
        if now is None or not is_here or now.record.state in ("failed", "cancelled", "dead"):
            job_files.drop(self._layout, task.id)

    async def reread(self, task: Task) -> Stored | None:
        """The job as it is now; None: it isn't this attempt of ours any more."""
        now = await self._read(task)
        return now if now and now.record.is_leased_to(self._name, task.attempt) else None

    async def _read(self, task: Task) -> Stored | None:
        """However long the store is away."""
        while True:
            with suppress(NatsError, asyncio.TimeoutError):
                return await self._store.read(task.id)
            await asyncio.sleep(AGAIN)


def ended_as(state: State, **about: Any) -> dict[str, Any]:
    """What follows for the record of a job that has ended."""
    return {"state": state, "ended": time.time(), **about}
