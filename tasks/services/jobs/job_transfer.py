"""What a job reads, brought to the machine on which it runs; what it has made, where all machines
find it."""

from __future__ import annotations

import asyncio
from typing import Any

from ...spec.layout import Layout
from . import connection, job_files
from .distant_file import Absent, DistantFile, Silent
from .file_exchange import FileExchange, Wanted
from .job_settings import Settings
from .object_files import ObjectFiles
from .record import Record
from .shared_inputs import SharedInputs, with_names
from .stored_workflow import pack, unpack


class JobTransfer:
    """Of one machine, `machine`."""

    def __init__(
        self, layout: Layout, exchange: FileExchange, objects: ObjectFiles | None, machine: str
    ) -> None:
        self._layout, self._inputs = layout, SharedInputs(layout)
        self._exchange, self._objects, self._machine = exchange, objects, machine

    async def brought(self, record: Record, workflow: bytes) -> bytes:
        """The workflow as it is executed here, where all that it reads is now.

        Raises Absent for an input that is nowhere any more, Silent for one that may be where
        nobody answers, and OSError.
        """
        names: dict[str, str] = {}
        for value, digest in record.inputs.items():
            if await asyncio.to_thread(self._inputs.holds, value, digest):
                continue
            if not await asyncio.to_thread(self._inputs.has, digest):
                await self._fetch(record, value, digest)
            name = await asyncio.to_thread(self._inputs.place, value, digest)
            if name != value:
                names[value] = name
        if not names:
            return workflow
        graph, extra = unpack(workflow)
        return pack(with_names(graph, names), extra)

    async def published(self, record: Record) -> dict[str, Any]:
        """What its record says of the files that a job has made. Raises OSError."""
        paths = await asyncio.to_thread(job_files.files_of, self._layout, record.id)
        sizes = {path.name: path.stat().st_size for path in paths}
        stored = self._objects is not None
        for path in paths if self._objects else ():
            assert self._objects
            stored = stored and await self._objects.put(
                self._objects.output_key(record, path.name), path
            )
        return {"machine": self._machine, "sizes": sizes, "stored": stored}

    async def forget(self, record: Record) -> None:
        """Nothing came of this attempt: another has the job."""
        if self._objects is not None:
            await self._objects.forget(record)

    async def _fetch(self, record: Record, value: str, digest: str) -> None:
        file = await self._find(record, value, digest)
        part, found = await file.keep(self._inputs.folder)
        try:
            if found != digest:
                raise Absent(f"{value} was changed on {record.origin} after the job was submitted")
            await asyncio.to_thread(self._inputs.take, part, digest)
        finally:
            part.unlink(missing_ok=True)

    async def _find(self, record: Record, value: str, digest: str) -> DistantFile:
        silent: Silent | None = None
        if self._objects is not None:
            try:
                return await self._objects.find(self._objects.input_key(digest))
            except Absent:
                pass
            except Silent as error:
                silent = error
        if record.origin != self._machine:
            try:
                return await self._exchange.find(record.origin, Wanted(digest=digest))
            except Absent:
                pass
        if silent is not None:
            raise silent
        raise Absent(f"{value} isn't on {record.origin} any more")


async def connected(settings: Settings, name: str) -> JobTransfer | None:
    """It gives this machine's files to others from now on; None: there are no others."""
    if not settings.shared:
        return None
    layout = Layout(settings.workspace)
    client = await connection.connect(settings, name)
    exchange = FileExchange(client, layout, settings.machine)
    await exchange.serve()
    objects = ObjectFiles.from_environment(settings.store)
    return JobTransfer(layout, exchange, objects, settings.machine)
