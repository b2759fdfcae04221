"""HTTP as uvicorn speaks it, with an end to clients that are slow, endless or too many.

uvicorn has a limit for connections that wait for a next request, and none for a request that
doesn't come to its end or an answer that isn't read; and it refuses everybody when it has too many
connections, also whoever asks whether this server is well (read in 0.54).
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .guard import REFUSED

REQUEST = 10.0
"""Seconds in which a request must have arrived."""
READ = 30.0
"""Seconds that a client may leave what it was sent unread."""
LONGEST = 65536
"""Bytes of a request; nothing that we serve takes a body."""


class Protocol(HttpToolsProtocol):
    """One connection. When there are too many, the one goes for which we have waited longest."""

    _waited_for: ClassVar[dict[Protocol, None]] = {}
    """Those whose turn it is to send or to read, in the order in which it became theirs."""
    _deadline: asyncio.TimerHandle | None = None
    _received = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for(REQUEST)
        if self._most is not None and len(self.connections) > self._most:
            next(iter(self._waited_for))._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > LONGEST:
            self._hang_up()
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            # No client in use pipelines requests, and uvicorn would not notice for the first of
            # them that the client is gone.
            self.pipeline.clear()
            self.cycle = before
            self._hang_up()

    def on_message_complete(self) -> None:
        self._received = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait_for(REQUEST)
        else:
            self._go_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.flow.write_paused:
            self._wait_for(REQUEST)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for(READ)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for(REQUEST)
        else:
            self._go_on()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(REFUSED)
        self.transport.close()

    def _wait_for(self, seconds: float) -> None:
        """It is the client's turn, for so long."""
        self._go_on()
        if not self.transport.is_closing():
            self._waited_for[self] = None
        self._deadline = self.loop.call_later(seconds, self._hang_up)

    def _go_on(self) -> None:
        """It isn't the client's turn."""
        self._waited_for.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._go_on()
        self.transport.abort()
