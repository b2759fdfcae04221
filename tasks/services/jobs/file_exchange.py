"""Files of this machine for others, and theirs for it, in pieces over NATS: no machine needs a way
to another but the server that keeps the jobs."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from pydantic import ValidationError

from ...spec.layout import Layout
from . import worker_protocol
from .distant_file import Absent, DistantFile, Silent
from .output_folders import OutputFolders
from .shared_inputs import SharedInputs

PIECE = 256 << 10
"""Bytes of an answer: a message ends at 1 MB."""
AT_ONCE = 8
"""Pieces of a file that are on their way or wait to be used."""
ANSWER, TRIES, PAUSE = 5.0, 4, 0.5
"""Seconds that a machine may take to answer, how often it is asked for a piece, and the seconds
between."""
SIZE, VERSION = "Size", "Version"
"""Headers of an answer; without them there is no such file."""


class Wanted(worker_protocol.Message):
    """A piece of an input, by its digest, or of what an instance wrote, as /view names it."""

    digest: str = ""
    name: str = ""
    subfolder: str = ""
    type: str = "output"
    instance: str = ""
    offset: int = 0
    length: int = 0
    """Bytes; 0 asks how large the file is."""


class FileExchange:
    """`client` is a connection of its own, or files would hold up leases."""

    def __init__(self, client: Client, layout: Layout, machine: str) -> None:
        self._client, self._machine = client, machine
        self._folders, self._inputs = OutputFolders(layout), SharedInputs(layout)

    async def serve(self) -> None:
        """Give others what they ask for, beside other programs of this machine."""
        await self._client.subscribe(_subject(self._machine), queue="files", cb=self._give)

    async def find(self, machine: str, wanted: Wanted) -> DistantFile:
        """A file of another machine. Raises Absent and Silent."""
        size, version, _ = await self._ask(machine, wanted, tries=1)

        def read(first: int, end: int) -> AsyncIterator[bytes]:
            return self._read(machine, wanted, version, first, end)

        return DistantFile(size, read)

    async def _read(
        self, machine: str, wanted: Wanted, version: str, first: int, end: int
    ) -> AsyncIterator[bytes]:
        async def piece(offset: int) -> bytes:
            about = {"offset": offset, "length": min(PIECE, end - offset)}
            _, found, data = await self._ask(machine, wanted.model_copy(update=about), TRIES)
            if found != version or len(data) != about["length"]:
                raise Absent(wanted.name or wanted.digest)
            return data

        offsets = iter(range(first, end, PIECE))
        begun: deque[asyncio.Task[bytes]] = deque()
        try:
            while True:
                while len(begun) < AT_ONCE and (offset := next(offsets, None)) is not None:
                    begun.append(asyncio.ensure_future(piece(offset)))
                if not begun:
                    return
                yield await begun[0]
                begun.popleft()
        finally:
            for each in begun:
                each.cancel()

    async def _ask(self, machine: str, wanted: Wanted, tries: int) -> tuple[int, str, bytes]:
        """Size, version and bytes. Raises Absent and Silent."""
        for left in reversed(range(tries)):
            try:
                answer = await self._client.request(
                    _subject(machine), wanted.model_dump_json().encode(), timeout=ANSWER
                )
                break
            except (Error, asyncio.TimeoutError) as error:
                if not left:
                    why = "isn't there" if isinstance(error, NoRespondersError) else "is silent"
                    raise Silent(f"{machine} {why}") from None
            await asyncio.sleep(PAUSE)
        headers = answer.headers or {}
        if SIZE not in headers:
            raise Absent(wanted.name or wanted.digest)
        return int(headers[SIZE]), headers[VERSION], answer.data

    async def _give(self, message: Msg) -> None:
        try:
            wanted = Wanted.model_validate_json(message.data)
            headers, data = await asyncio.to_thread(self._piece, wanted)
        except (ValidationError, OSError):
            headers, data = {}, b""
        with suppress(Error):
            await self._client.publish(message.reply, data, headers=headers or None)

    def _piece(self, wanted: Wanted) -> tuple[dict[str, str], bytes]:
        if (path := self._locate(wanted)) is None:
            return {}, b""
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            file.seek(max(0, wanted.offset))
            data = file.read(max(0, min(wanted.length, PIECE)))
        version = f"{about.st_ino}-{about.st_mtime_ns}-{about.st_size}"
        return {SIZE: str(about.st_size), VERSION: version}, data

    def _locate(self, wanted: Wanted) -> Path | None:
        if wanted.digest:
            return self._inputs.get(wanted.digest)
        return self._folders.locate(wanted.name, wanted.subfolder, wanted.type, wanted.instance)


def _subject(machine: str) -> str:
    return f"comfy.jobs.files.{worker_protocol.token(machine)}"
