"""What ComfyUI says about a job, passed on to whoever follows it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.errors import Error

from . import worker_protocol

BUFFER = 64
"""Messages of the instance that wait to be passed on."""


class ProgressRelay:
    """Drops what comes faster than it can be passed on: nobody misses a picture more than the job
    that it would hold up."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._said: asyncio.Queue[tuple[str, dict[str, Any] | bytes]] = asyncio.Queue(BUFFER)

    def take(self, job: str, said: dict[str, Any] | bytes) -> None:
        """JSON, or a picture's bytes."""
        with suppress(asyncio.QueueFull):
            self._said.put_nowait((job, said))

    async def pass_on(self) -> None:
        """For ever."""
        while True:
            job, said = await self._said.get()
            subject = f"{worker_protocol.PROGRESS}.{job}"
            with suppress(Error):
                if isinstance(said, bytes):
                    await self._client.publish(subject, said, headers={"Kind": "binary"})
                else:
                    await self._client.publish(subject, json.dumps(said).encode())
