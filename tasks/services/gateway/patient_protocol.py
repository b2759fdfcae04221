"""uvicorn's HTTP protocol, with an end to the patience for clients that don't send or read.

uvicorn limits neither (as of 0.54). How long a body may take is the application's to say.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT = 15.0
"""Seconds in which the head of a request must arrive, the first or after an answer."""
READ_TIMEOUT = 60.0
"""Seconds in which a client must read some more of its answer."""
LONGEST_HEAD = 65536
"""Bytes before the body."""


class PatientProtocol(HttpToolsProtocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
            if self._head > LONGEST_HEAD and not self._ends_here(data):
                self._hang_up()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._wait(None)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._in_head, self._head = True, 0
        self._wait(HEAD_TIMEOUT)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(READ_TIMEOUT)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait(None)

    def handle_websocket_upgrade(self) -> None:
        self._wait(None)
        super().handle_websocket_upgrade()

    def _ends_here(self, data: bytes) -> bool:
        """Whether what came may hold the whole head and a part of the body."""
        return b"\r\n\r\n" in data

    def _wait(self, seconds: float | None) -> None:
        """The client must act within so many seconds; None: it need not."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._hang_up)

    def _hang_up(self, *_: Any) -> None:
        self._wait(None)
        self.transport.abort()
