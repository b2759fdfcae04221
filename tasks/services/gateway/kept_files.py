"""Files of jobs on this machine and in the object store: when they go."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from nats.errors import Error

from ...spec.layout import Layout
from ..jobs import disk_room, job_files
from ..jobs.record import ENDED
from ..jobs.shared_inputs import SharedInputs
from .job_desk import JobDesk
from .refused import Refused

LOOK = 60.0
"""Seconds between two looks at how full the disk is."""
SWEEP = 600.0
"""Seconds between two looks for files of jobs that are kept no longer."""


class KeptFiles:
    """Results are kept for `jobs.keep` days and while the disk has room."""

    def __init__(self, desk: JobDesk, layout: Layout) -> None:
        self._desk, self._layout = desk, layout
        self._inputs = SharedInputs(layout)

    async def watch(self) -> None:
        """For ever."""
        swept = -SWEEP
        while True:
            with suppress(OSError, Error, Refused, asyncio.TimeoutError):
                if time.monotonic() - swept >= SWEEP:
                    swept = time.monotonic()
                    await self._sweep()
                await self._make_room()
            await asyncio.sleep(LOOK)

    async def _sweep(self) -> None:
        view, keep = self._desk.view, self._desk.settings.keep
        await asyncio.to_thread(job_files.sweep, self._layout, view.ids(), keep)
        named = {digest for each in view.newest() for digest in each.inputs.values()}
        await asyncio.to_thread(self._inputs.sweep, named)
        if self._desk.objects is not None:
            await self._desk.objects.sweep(view.ids(), named, keep)

    async def _make_room(self) -> None:
        if not await asyncio.to_thread(disk_room.lacks, self._layout):
            return
        for job in await asyncio.to_thread(disk_room.oldest_first, self._layout, self._ended):
            if await self._desk.note_gone(job):
                await asyncio.to_thread(job_files.drop, self._layout, job)
            if not await asyncio.to_thread(disk_room.lacks, self._layout):
                return

    def _ended(self, job: str) -> float | None:
        stored = self._desk.view.get(job)
        if stored is None:
            return None
        return stored.record.ended if stored.record.state in ENDED else time.time()
