"""The files that jobs have made, wherever they lie."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ...spec.layout import Layout
from ..jobs.distant_file import Absent, DistantFile, Silent
from ..jobs.file_exchange import Wanted
from ..jobs.output_folders import OutputFolders
from ..jobs.record import Record
from .job_desk import JobDesk
from .output_files import OutputFile
from .refused import Refused

RETRY = 5
"""Seconds after which a client may ask again for what a machine has that doesn't answer."""
File = Path | DistantFile


class JobOutputs:
    """Looks on this machine's disk, then in the object store, then at the machine that ran the
    job."""

    def __init__(self, desk: JobDesk, layout: Layout) -> None:
        self._desk, self.folders = desk, OutputFolders(layout)

    def here(self, output: OutputFile) -> Path | None:
        """The file, if it is on this machine; it waits for the disk."""
        return self.folders.locate(output.name, output.subfolder, output.type, output.instance)

    async def find(self, record: Record, output: OutputFile) -> File:
        """The file. Raises Refused: it is gone, or its machine doesn't answer now."""
        if path := await asyncio.to_thread(self.here, output):
            return path
        is_silent = False
        if record.stored and (objects := self._desk.objects):
            try:
                return await objects.find(objects.output_key(record, output.name))
            except Absent:
                pass
            except Silent:
                is_silent = True
        try:
            return await self._ask(record, output)
        except Refused:
            if is_silent:
                raise silent("the object store") from None
            raise

    async def _ask(self, record: Record, output: OutputFile) -> File:
        if record.gone:
            raise gone(output.name, "it was removed to make room on the disk")
        exchange, instances = self._desk.exchange, self._desk.instances
        machine = record.machine or instances.machine_of(record.instance)
        if exchange is None or not machine or machine == self._desk.settings.machine:
            raise gone(output.name, "it isn't on this machine any more")
        wanted = Wanted(
            name=output.name, subfolder=output.subfolder, type=output.type,
            instance=output.instance,
        )  # fmt: skip
        try:
            return await exchange.find(machine, wanted)
        except Absent:
            raise gone(output.name, f"it isn't on {machine} any more") from None
        except Silent:
            if self._desk.is_connected and instances.has_left(machine):
                raise gone(output.name, f"{machine}, which has it, left") from None
            raise silent(machine) from None


def gone(name: str, why: str) -> Refused:
    return Refused(410, "output_unavailable", f"{name} is gone: {why}")


def silent(machine: str) -> Refused:
    return Refused(
        503, "output_unavailable", f"{machine}, which has the file, doesn't answer: ask again",
        headers={"Retry-After": str(RETRY)},
    )  # fmt: skip
