"""HTTP as uvicorn speaks it, with an end to requests that come too slowly or are too long.

uvicorn has a limit for connections that wait for a next request, and none for a request that
doesn't come to its end (read in 0.54).
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST = 10.0
"""Seconds in which a request must have arrived."""
LONGEST = 65536
"""Bytes of a request; nothing that we serve takes a body."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > LONGEST:
            self.transport.abort()
            return
        if self._deadline is None:
            self._arm()
        super().data_received(data)

    def on_message_complete(self) -> None:
        self._disarm()
        self._received = 0
        super().on_message_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(REQUEST, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
