"""uvicorn's HTTP protocol, with limits for clients that are slow, endless or too many.

uvicorn limits how long a connection waits for the next request, but not how long a request takes to
arrive, or an answer to be read. With too many connections it refuses all new ones, liveness probes
included (as of 0.54).
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .guard import REFUSED

REQUEST_TIMEOUT = 10.0
"""Seconds in which a request must arrive."""
READ_TIMEOUT = 30.0
"""Seconds in which a client must read its answer."""
LONGEST = 65536
"""Bytes of a request; none of our endpoints takes a body."""


class Protocol(HttpToolsProtocol):
    """One connection. If there are too many, the one that has waited longest is closed."""

    _waiting: ClassVar[dict[Protocol, None]] = {}
    """Connections whose client must send or read next, in the order in which they began to wait."""
    _deadline: asyncio.TimerHandle | None = None
    _received = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for(REQUEST_TIMEOUT)
        if self._most is not None and len(self.connections) > self._most:
            next(iter(self._waiting))._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > LONGEST:
            self._hang_up()
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        previous = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            # Common clients don't pipeline, and with pipelining uvicorn doesn't notice that the
            # client of the first request has disconnected.
            self.pipeline.clear()
            self.cycle = previous
            self._hang_up()

    def on_message_complete(self) -> None:
        self._received = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait_for(REQUEST_TIMEOUT)
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.flow.write_paused:
            self._wait_for(REQUEST_TIMEOUT)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for(READ_TIMEOUT)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for(REQUEST_TIMEOUT)
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(REFUSED)
        self.transport.close()

    def _wait_for(self, seconds: float) -> None:
        """The client must act within so many seconds."""
        self._stop_waiting()
        if not self.transport.is_closing():
            self._waiting[self] = None
        self._deadline = self.loop.call_later(seconds, self._hang_up)

    def _stop_waiting(self) -> None:
        """The client need not act now."""
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._stop_waiting()
        self.transport.abort()
