"""What an instance says at its WebSocket about the jobs of one client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

LONGEST = 64 << 20
"""Bytes of one message: a preview is a picture."""
AGAIN = 1.0
"""Seconds between two attempts to connect."""
PINGS = 5.0
"""Seconds between two pings: a connection that is cut off says nothing otherwise."""

Said = Callable[[str, dict[str, Any]], None]
Pictured = Callable[[bytes], None]


class InstanceEvents:
    """A connection that comes back by itself; `connected` says whether it is there now."""

    def __init__(self, url: str, client: str, said: Said, pictured: Pictured) -> None:
        self._url = f"ws{url.removeprefix('http')}/ws?clientId={client}"
        self._said, self._pictured = said, pictured
        self.connected = asyncio.Event()

    async def follow(self) -> None:
        """Pass on what is said, for ever."""
        # The certificate isn't checked, as in host/comfyui/exchange.py.
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                try:
                    await self._listen(session)
                except (OSError, aiohttp.ClientError, asyncio.TimeoutError):
                    pass
                finally:
                    self.connected.clear()
                await asyncio.sleep(AGAIN)

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        connecting = session.ws_connect(self._url, heartbeat=PINGS, max_msg_size=LONGEST)
        async with await asyncio.wait_for(connecting, PINGS) as socket:
            self.connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    self._pictured(message.data)
                elif message.type == aiohttp.WSMsgType.TEXT:
                    self._tell(message.data)

    def _tell(self, text: str) -> None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return
        data = found.get("data") if isinstance(found, dict) else None
        if isinstance(data, dict):
            self._said(str(found.get("type")), data)
